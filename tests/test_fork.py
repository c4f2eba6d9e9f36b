"""What workers inherit of the process that loaded the application, and what they do not."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from rig import http, processes
from rig.site import KINDS, every_kind
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI's workers are forked from its master")


def test_what_is_printed_while_loading_is_printed_once(serve, address, stats_at):
    server = serve(
        "--http-socket", address, "--wsgi-file", "loud.py", "--master", "--processes", 3, "--stats", stats_at
    )
    server.wait_workers(3)
    assert http.get(address, "/").body == b"ok"
    server.stop()
    assert server.log().count("half a line") == 1


def test_threads_started_while_loading_are_warned_of(serve, address):
    server = serve("--http-socket", address, "--wsgi-file", "loud.py", "--master")
    server.logged("threads.*lazy-apps")


def test_a_lock_that_a_thread_holds_while_the_application_loads_is_free_in_every_worker(serve, address, tmp_path):
    """A fork copies locks as they are, and takes no thread along that would release them."""
    (tmp_path / "locked.py").write_text(
        "import threading, time\n"
        "lock = threading.Lock()\n"
        "def tidy():\n"
        "    while True:\n"
        "        with lock:\n"
        "            until = time.monotonic() + 0.1\n"
        "            while time.monotonic() < until: pass\n"
        "        time.sleep(3600)\n"
        "thread = threading.Thread(target=tidy, daemon=True)\n"
        "thread.start()\n"
        "while not lock.locked(): time.sleep(0.001)\n"
        "def application(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [b'free' if lock.acquire(timeout=2) else b'held']\n"
    )
    server = serve("--http-socket", address, "--wsgi-file", "locked.py", "--processes", 2, cwd=tmp_path)
    assert http.get(address, "/").text == "free"
    server.logged("has started threads while it was loaded")


def test_a_worker_has_no_end_of_the_fork_server_s_channel(serve, address, stats_at):
    server = serve("--http-socket", address, "--wsgi-file", "odd.py", "--master", "--stats", stats_at)
    pid = server.wait_workers(1)["workers"][0]["pid"]
    (fork_server,) = (process.pid for process in server.processes() if "forkserver" in process.command)

    def sockets(process: int) -> set[str]:
        return {link for link in processes.look(process).open_files() if link.startswith("socket:")}

    # The listener, and what the application tells the master through: stdin, stdout and stderr are none here.
    assert len(sockets(pid)) == 2
    assert len(sockets(fork_server) - sockets(pid)) == 1


def test_a_child_of_the_application_does_not_keep_the_worker_busy(serve, address, stats_at, tmp_path):
    """The child's copy of a connection keeps it alive, and what is watched of it, when the worker has closed its own."""
    server = serve("--http-socket", address, "--wsgi-file", "odd.py", "--master", "--stats", stats_at)
    pid = server.wait_workers(1)["workers"][0]["pid"]
    go = tmp_path / "go"

    def sleeps() -> bool:
        state = Path(f"/proc/{pid}/stat")
        return all(state.read_text().rpartition(")")[2].split()[0] == "S" for _ in range(50))

    with http.Connection(address) as connection:
        assert connection.request("GET", "/quick").status == 200
        assert connection.request("GET", f"/fork?go={go}").body == b"forked"
    until(sleeps, "the worker sleeps")
    assert http.get(address, "/quick").status == 200
    until(sleeps, "the worker sleeps")
    go.touch()


# In the fifth column of /proc/net/unix.
SEQPACKET = "0005"


def unix_sockets() -> list[list[str]]:
    with open("/proc/net/unix") as table:
        return [line.split() for line in table][1:]


@pytest.mark.parametrize("kind", KINDS)
def test_a_child_of_the_application_holds_nothing_of_the_worker_s(serve, tmp_path, kind):
    site = every_kind(serve, "--wsgi-file", "odd.py", "--threads", 2)[kind]
    go = tmp_path / "go"
    with site.open("GET", f"/fork?go={go}") as connection:
        answer = connection.response()
        assert answer.body == b"forked"
        # Its copy does not keep the connection from ending.
        assert connection.rest() == b""
    child = int(answer.header("X-Child"))

    def sockets() -> list[str]:
        # One is for all processes of the application: the call socket.
        uplinks = {f"socket:[{row[6]}]" for row in unix_sockets() if row[4] == SEQPACKET}
        links = processes.look(child).open_files()
        return [link for link in links if link.startswith(("socket:", "pipe:", "anon_inode:")) and link not in uplinks]

    until(lambda: not sockets(), "it has closed them", context=lambda: str(sockets()))
    go.touch()


EARLY = """
import os, time
child = os.fork()
if child == 0:
    time.sleep(60)
    os._exit(0)

def application(environ, start_response):
    start_response("200 OK", [])
    return [str(child).encode()]
"""


def test_what_is_forked_while_the_application_loads_holds_nothing_and_ends_when_told_to(serve, address, tmp_path):
    """As a `multiprocessing.Manager` at the top of a module does it: it would hold the port after the server's end."""
    (tmp_path / "early.py").write_text(EARLY)
    server = serve("--http-socket", address, "--wsgi-file", "early.py", "--processes", 2, cwd=tmp_path)
    child = int(http.get(address, "/").body)
    fork_server = processes.look(child).parent

    def held() -> set[str]:
        uplinks = {f"socket:[{row[6]}]" for row in unix_sockets() if row[4] == SEQPACKET}
        links = set(processes.look(child).open_files())
        return {link for link in links if link.startswith(("socket:", "pipe:"))} - uplinks

    # It lets go of them itself, and the application is loaded by then, perhaps.
    until(lambda: not held(), "the child holds nothing", context=lambda: str(held()))
    assert "forkserver" in processes.look(fork_server).command
    os.kill(child, signal.SIGTERM)
    # Nobody waits for it but its parent.
    until(lambda: not processes.alive(child), "it has ended", context=lambda: str(processes.look(child)))
    assert http.get(address, "/").status == 200


@pytest.mark.parametrize("kind", KINDS)
def test_a_child_that_is_told_to_end_ends_and_not_its_worker(serve, kind):
    site = every_kind(serve, "--wsgi-file", "odd.py")[kind]
    before = site.get("/pid").body
    # As multiprocessing's `Process.terminate()`.
    assert site.get("/fork-and-terminate").body == b"killed by 15"
    assert site.get("/pid").body == before
    assert "has left" not in site.server.log()


@pytest.mark.parametrize("kind", KINDS)
def test_a_child_that_comes_back_from_the_application_is_no_worker(serve, stats_at, kind):
    site = every_kind(serve, "--wsgi-file", "odd.py", "--stats", stats_at)[kind]
    with site.open("GET", "/fork-and-return") as connection:
        assert connection.response().body == b"once"
        assert connection.rest() == b""
    server = site.server
    (worker,) = server.stats()["workers"]
    until(
        lambda: [p for p in server.processes() if p.command == "rwsgi worker 1"] == [processes.look(worker["pid"])],
        "the child is gone", context=lambda: f"{server.processes()}\n{server.log()}",
    )
    assert site.get("/pid").body == str(worker["pid"]).encode()
    server.wait_stats(lambda document: document["workers"][0]["requests"] == 2, "each is counted once")


@pytest.mark.parametrize("kind", KINDS)
def test_a_child_that_comes_back_before_its_worker_takes_no_request_from_it(serve, kind):
    site = every_kind(serve, "--wsgi-file", "odd.py")[kind]
    before = site.get("/pid").body
    assert site.get("/fork-and-return-late").body == b"once", site.server.log()
    assert site.get("/pid").body == before
    assert "was lost" not in site.server.log()


def test_a_thread_that_is_no_daemon_finishes_before_its_worker_ends(serve, address, stats_at, tmp_path):
    server = serve("--http-socket", address, "--wsgi-file", "odd.py", "--stats", stats_at)
    server.wait_workers(1)
    go, done = tmp_path / "go", tmp_path / "done"
    assert http.get(address, f"/thread?go={go}&done={done}").status == 200
    server.send(signal.SIGTERM)
    server.logged("waiting for threads of the application that are no daemons: writer")
    go.touch()
    assert server.wait_exit() == 0
    # What an executor was given is done as well.
    assert done.read_text() == "thread executor"


def test_what_is_registered_for_the_exit_runs_once_in_each_worker(serve, address, stats_at):
    server = serve(
        "--http-socket", address, "--wsgi-file", "loud.py", "--master", "--processes", 2, "--stats", stats_at
    )
    pids = {worker["pid"] for worker in server.wait_workers(2)["workers"]}
    server.stop()
    said = [int(line.rpartition(" ")[2]) for line in server.lines("loud.py leaves")]
    assert sorted(said) == sorted(pids)
