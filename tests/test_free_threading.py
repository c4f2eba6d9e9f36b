"""Many threads of one worker on shared objects: with a Python that has a global lock, and with one that has none, where they
execute at the same time. What needs the latter is skipped elsewhere."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import signal
import sysconfig
import threading

import pytest

from rig import http, processes
from rig.addresses import tcp
from rig.control import ask
from rig.http import Connection, head
from rig.load import Load
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="real uWSGI is not built for Python without a global lock")

free_threaded = pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python has a global lock: one thread executes at a time"
)

THREADS = 8
CLIENTS = 8
# Of each kind by each client.
ROUNDS = int(os.environ.get("TESTS_HAMMER_ROUNDS", "6"))
KINDS = ["/echo", "/stream", "/upload", "/raise", "/api", "/keep", "/collect", "/fork"]
OPTIONS = [
    "--wsgi-file", "threaded.py", "--threads", THREADS, "--locks", 1, "--cache2", "name=c,items=100", "--metric",
    "name=counted", "--gc-stats",
]


def with_server(serve, tmp_path, *arguments):
    """A server with one worker of many threads, behind both kinds of socket; its addresses and itself."""
    direct, routed, stats_at, control = tcp(), tcp(), tcp(), tmp_path / "control.sock"
    server = serve(
        "--http-socket", direct, "--http", routed, "--stats", stats_at, "--control", control, *OPTIONS, *arguments
    )
    return server, [direct, routed], control


class Hammer:
    """Clients that ask for everything at once, and check every answer."""

    def __init__(self, addresses: list[str]) -> None:
        self.addresses = addresses
        self.wrong: list[str] = []
        self.sent: dict[str, int] = dict.fromkeys(KINDS, 0)
        self._lock = threading.Lock()
        self._numbers = itertools.count()

    def run(self) -> None:
        clients = [threading.Thread(target=self._client, args=(number,)) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join(300)
            assert not client.is_alive(), f"a client hangs; wrong {self.wrong[:5]}"

    def _client(self, number: int) -> None:
        address = self.addresses[number % len(self.addresses)]
        # Each begins elsewhere.
        kinds = KINDS[number % len(KINDS):] + KINDS[:number % len(KINDS)]
        connection = Connection(address)
        for kind in kinds * ROUNDS:
            with self._lock:
                request = f"{number}x{next(self._numbers)}"
                self.sent[kind] += 1
            try:
                problem, stays = self._ask(connection, kind, request)
                if problem:
                    self.wrong.append(f"{kind} {request}: {problem}")
                if not stays:
                    connection.close()
                    connection = Connection(address)
            except (OSError, AssertionError) as failure:
                self.wrong.append(f"{kind} {request}: {failure!r}")
                connection.close()
                connection = Connection(address)
        connection.close()

    def _ask(self, connection: Connection, kind: str, request: str) -> tuple[str, bool]:
        body = b"\n".join(request.encode() * n for n in range(60)) if kind == "/upload" else b""
        answer = connection.request("POST" if body else "GET", f"{kind}?{request}", {"X-Mark": request}, body or None)
        stays = "close" not in [value.lower() for value in answer.all("Connection")]
        if kind == "/raise":
            return ("" if answer.status == 500 else f"{answer.status}"), stays
        expected = {
            "/stream": "".join(f"{request}:{n}\n" for n in range(20)),
            "/upload": hashlib.sha256(body).hexdigest(),
        }.get(kind, request)
        if (answer.status, answer.text, answer.header("X-Mark")) != (200, expected, request):
            return f"{answer.status} {answer.headers} {answer.text[:200]!r}", stays
        return "", stays


class Onlooker:
    """Asks for stacks, profiles, reports and the stats all the time."""

    def __init__(self, server, control) -> None:
        self.failures: list[str] = []
        self.asked = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, args=(server, control))

    def __enter__(self) -> Onlooker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self, server, control) -> None:
        questions = itertools.cycle([
            ("stacks", {}), ("profile", {"seconds": 0.2, "rate": 200}), ("stats", None), ("memory", {"worker": 1, "what": "types"}),
        ])
        while not self._over.is_set():
            do, arguments = next(questions)
            try:
                if arguments is None:
                    server.stats()
                else:
                    reply = ask(control, do, **arguments)
                    # An order waits for a thread that is free, and no thread may be.
                    if "done" not in reply and do != "memory":
                        self.failures.append(f"{do}: {reply}")
            except (OSError, AssertionError, ValueError) as failure:
                self.failures.append(f"{do}: {failure!r}")
            self.asked += 1


def test_many_threads_of_a_worker_lose_nothing_and_mix_nothing_up(serve, tmp_path):
    server, addresses, control = with_server(serve, tmp_path)
    hammer = Hammer(addresses)
    with Onlooker(server, control) as onlooker:
        hammer.run()
    assert not hammer.wrong, f"{len(hammer.wrong)}: {hammer.wrong[:10]}\n{server.log()[-4000:]}"
    assert not onlooker.failures and onlooker.asked
    sent = sum(hammer.sent.values())
    state = json.loads(http.get(addresses[0], "/state").text)
    api = hammer.sent["/api"]
    assert state == {"all": sent, "seen": sent, "different": sent, "api": [api, api, api]}
    worker = server.wait_stats(lambda stats: stats["workers"][0]["requests"] == sent + 1, "all are counted")["workers"][0]
    assert worker["exceptions"] == hammer.sent["/raise"]
    assert sum(core["requests"] for core in worker["cores"]) == sent + 1
    assert worker["respawn_count"] == 1 and worker["gc"]["collections"] > 0
    # One line for each request, whole, whatever others write meanwhile.
    until(lambda: len(server.lines("GET /echo")) >= hammer.sent["/echo"], "all are logged", context=lambda: server.log()[-4000:])
    assert len(server.lines("GET /echo")) == hammer.sent["/echo"]


def test_a_thread_may_read_the_body_while_another_answers(serve, tmp_path):
    server, addresses, _ = with_server(serve, tmp_path)
    body = b"a line of the body\n" * 200
    for address in addresses:
        for _ in range(5):
            answer = http.request(address, "POST", "/upload-beside", body=body)
            assert (answer.status, answer.text) == (200, hashlib.sha256(body).hexdigest()), server.log()


def test_reloads_while_many_threads_serve_lose_no_request(serve, tmp_path):
    server, addresses, _ = with_server(serve, tmp_path)
    loads = [Load(address, "/stream?n", clients=4, keep_alive=True).start() for address in addresses]
    for reload in range(2):
        for load in loads:
            load.wait_good(50)
        before = server.stats()["workers"][0]["pid"]
        os.kill(server.pid, signal.SIGHUP)
        server.wait_stats(lambda stats: stats["workers"][0]["pid"] != before, "the worker is replaced")
        until(lambda: not processes.alive(before), "the worker before has left", context=server.log)
    for load in loads:
        load.wait_good(20)
        load.stop()
        assert not load.lost, f"{load.lost}\n{server.log()[-4000:]}"


CHANGING = """
import uwsgi

class Changing:
    def __bytes__(self):
        JOB[b"more"] = b"x"
        return b"y"

JOB = {b"first": Changing(), b"second": b"z"}

def application(environ, start_response):
    start_response("200 OK", [])
    try:
        return [uwsgi.spool(JOB)]
    except BaseException as error:
        return [repr(error).encode()]
"""


def test_a_dictionary_that_changes_while_it_is_read_ends_nothing(serve, tmp_path, address):
    """As a thread may change it, and the code that makes bytes of a value."""
    (tmp_path / "changing.py").write_text(CHANGING)
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    serve("--http-socket", address, "--wsgi-file", tmp_path / "changing.py", "--spooler", jobs)
    assert http.get(address, "/").text.startswith(str(jobs))


@free_threaded
def test_without_a_global_lock_two_threads_execute_at_the_same_time(serve, tmp_path):
    server, [address, _], _ = with_server(serve, tmp_path)
    assert http.get(address, "/lock").text == "False", server.log()
    http.get(address, "/alone")
    clients = [Connection(address), Connection(address)]
    for which, client in enumerate(clients):
        client.send(head("GET", f"/spin?{which}"))
    assert [client.response().text for client in clients] == ["together", "together"]
    for client in clients:
        client.close()
    worker = server.stats()["workers"][0]
    assert worker["gil_wait"] == 0, "nobody waits for a lock that is not there"
    assert "GIL" not in server.log()


@free_threaded
def test_a_python_whose_global_lock_was_turned_on_serves_as_any_other(serve, tmp_path):
    address = tcp()
    server = serve("--http-socket", address, *OPTIONS, env={"PYTHON_GIL": "1"})
    assert http.get(address, "/lock").text == "True", server.log()
    hammer = Hammer([address])
    hammer.run()
    assert not hammer.wrong, f"{hammer.wrong[:10]}\n{server.log()[-4000:]}"
