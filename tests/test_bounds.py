"""Bounds of requests and connections, as a client meets them: sizes, times, and what a socket is set to."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from rig import http, uwsgi
from rig.addresses import free_port, tcp
from rig.load import Load
from rig.site import KINDS, every_kind
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI closes without an answer")

# Less than what is in force without the option.
SOONER = 20.0


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_that_is_larger_than_buffer_size_is_refused(serve, kind):
    site = every_kind(serve, "--wsgi-file", "worklife.py", "--buffer-size", 4096)[kind]
    assert site.get("/", {"X-Large": "x" * 2000}).status == 200
    if kind == "socket":
        # The uwsgi protocol is spoken by a proxy, which makes a 502 of it.
        with pytest.raises((http.Closed, ConnectionError)):
            assert site.get("/", {"X-Large": "x" * 5000}).status >= 400
            raise ConnectionError("refused")
    else:
        assert site.get("/", {"X-Large": "x" * 5000}).status == 431


@pytest.mark.parametrize("kind", ["http-socket", "socket"])
@pytest.mark.parametrize(("size", "in_a_file"), [(1000, False), (3000, True)])
def test_a_body_that_is_larger_than_post_buffering_waits_in_a_file(serve, tmp_path, stats_at, kind, size, in_a_file):
    site = every_kind(serve, "--wsgi-file", "worklife.py", "--post-buffering", 2000, "--stats", stats_at)[kind]
    worker = site.server.wait_workers(1)["workers"][0]["pid"]
    started, go = tmp_path / "started", tmp_path / "go"
    with site.open("POST", f"/?started={started}&until={go}", {"Content-Length": str(size)}, b"x" * size) as connection:
        until(started.exists, "the request has begun", context=site.server.log)
        assert any(about.st_size == size and about.st_nlink == 0 for about in open_files(worker)) == in_a_file
        go.touch()
        assert connection.response().status == 200


def open_files(pid: int) -> list[os.stat_result]:
    """What a process has open; without what it closes meanwhile."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(os.stat(entry))
    return found


@pytest.mark.parametrize(("kind", "option"), [
    ("http-socket", "socket-timeout"), ("socket", "socket-timeout"), ("http", "http-timeout"),
])
def test_a_client_that_stops_in_the_middle_is_let_go(serve, address, kind, option):
    serve(f"--{kind}", address, "--wsgi-file", "worklife.py", f"--{option}", 1)
    begun = uwsgi.packet(uwsgi.variables("GET", "/", None)) if kind == "socket" else http.head("GET", "/")
    with http.Connection(address) as connection:
        connection.socket.settimeout(SOONER)
        connection.send(begun[:20])
        try:
            assert connection.response().status == 408
        except http.Closed:
            pass


def test_small_answers_are_sent_at_once(serve, tmp_path):
    """TCP_NODELAY on what is accepted, which only the process itself can see."""
    (tmp_path / "own.py").write_text(OWN_SOCKETS)
    at = tcp()
    serve("--http-socket", at, "--wsgi-file", "own.py", "--tcp-nodelay", cwd=tmp_path)
    assert http.get(at, "/").body == b"True"


OWN_SOCKETS = """
import os, socket, stat

def application(environ, start_response):
    start_response("200 OK", [])
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            with socket.socket(fileno=os.dup(int(name))) as copy:
                copy.getpeername()
                found.append(copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0)
        except OSError:
            pass
    return [str(all(found) and bool(found)).encode()]
"""


def test_all_applications_are_in_one_interpreter_and_may_have_threads(serve, address, tmp_path):
    """What `single-interpreter` and `enable-threads` ask for: a module that is shared, and a thread that runs between
    requests."""
    (tmp_path / "common.py").write_text(
        "import threading\nticks = []\n"
        "def tick():\n    ticks.append(1)\n    timer = threading.Timer(0.01, tick)\n    timer.daemon = True\n    timer.start()\n"
    )
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text(
            "import common, os\n"
            "def application(environ, start_response):\n"
            "    start_response('200 OK', [])\n"
            "    if not common.ticks: common.tick()\n"
            "    return [f'{id(common)} {len(common.ticks)}'.encode()]\n"
        )
    serve(
        *("--http-socket", address, "--mount", "/one=one.py", "--mount", "/two=two.py", "--single-interpreter"),
        *("--enable-threads", "--thunder-lock", "--need-app", "--die-on-term", "--master"),
        cwd=tmp_path,
    )
    answers = [http.get(address, path).text.split() for path in ("/one", "/two")]
    assert answers[0][0] == answers[1][0]
    until(lambda: int(http.get(address, "/one").text.split()[1]) > 20, "the thread runs between requests")


def test_a_worker_that_does_not_finish_is_ended_after_reload_mercy(serve, address, tmp_path):
    server = serve("--http-socket", address, "--wsgi-file", "worklife.py", "--reload-mercy", 1)
    started = tmp_path / "started"
    with http.Connection(address) as connection:
        connection.send(http.head("GET", f"/?started={started}&until={tmp_path / 'never'}"))
        until(started.exists, "the request has begun")
        server.process.terminate()
        assert server.wait_exit(SOONER) == 0
        assert "did not leave in time: killed" in server.log()
        with pytest.raises((http.Closed, ConnectionError)):
            connection.response()


def test_each_worker_has_a_limit_of_its_own_with_a_delta(serve, address, stats_at):
    server = serve(
        "--http-socket", address, "--wsgi-file", "worklife.py", "--processes", 2, "--max-requests", 5,
        "--max-requests-delta", 100_000, "--stats", stats_at,
    )
    second = server.wait_workers(2)["workers"][1]["pid"]

    def both() -> bool:
        one, two = server.stats()["workers"]
        return one["recycled"]["max_requests"] >= 3 and two["requests"] > 20

    # Of requests one after the other, one worker may get all.
    with Load(address, clients=4) as load:
        until(both, "the first is replaced, and the second has served more than that", context=server.log)
    assert not load.lost
    two = server.stats()["workers"][1]
    assert (two["pid"], two["recycled"]["max_requests"]) == (second, 0)


def test_logto2_is_opened_by_the_user_that_serves(serve, address, tmp_path):
    log = tmp_path / "log"
    serve("--http-socket", address, "--wsgi-file", "worklife.py", "--logto2", log)
    assert http.get(address, "/seen").status == 200
    until(lambda: "/seen" in log.read_text(), "the request is in the file")


@pytest.mark.parametrize("protocol", ["http", "uwsgi"])
def test_protocol_says_what_a_socket_speaks(serve, address, protocol):
    serve("--socket", address, "--protocol", protocol, "--wsgi-file", "foobar.py")
    assert {"http": http, "uwsgi": uwsgi}[protocol].get(address, "/").body == b"Hello World"


def test_a_socket_of_ipv6_is_served(serve):
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
    at = f"[::1]:{free_port()}"
    serve("--http-socket", at, "--wsgi-file", "foobar.py")
    assert http.get(at, "/").body == b"Hello World"
