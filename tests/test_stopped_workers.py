"""Workers that do not begin with what they are sent: stopped, or hung before they read it."""

from __future__ import annotations

import os
import signal

import pytest

from rig import processes
from rig.http import Connection, head
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI's router knows nothing of its workers")

# Far less than anybody would wait for a stopped worker.
SOON = 30.0


@pytest.fixture
def stopped(serve, address, stats_at):
    """A server behind `--http`, one of whose two workers is stopped."""
    server = serve(
        "--http", address, "--wsgi-file", "probe.py", "--processes", 2, "--threads", 2, "--stats", stats_at,
        "--post-buffering", 10_000_000,
    )
    worker = server.wait_workers(2)["workers"][0]["pid"]
    stop(worker)
    yield server
    os.kill(worker, signal.SIGCONT)


def stop(pid: int) -> None:
    """Stops a process. It may begin with a request before the system gets to it, so this waits for that."""
    os.kill(pid, signal.SIGSTOP)
    until(lambda: processes.look(pid).state == "T", "it is stopped")


def asks(address: str, data: bytes) -> Connection:
    """Sends a request; its answer must come soon."""
    connection = Connection(address)
    connection.socket.settimeout(SOON)
    connection.send(data)
    return connection


@pytest.mark.parametrize("size", [0, 1_000, 100_000, 5_000_000])
def test_no_request_waits_for_a_stopped_worker_while_another_is_idle(stopped, address, size):
    for _ in range(40):
        with asks(address, head("POST", "/count", body=b"") if not size else
                  head("POST", "/count", {"Content-Length": str(size)}) + b"x" * size) as connection:
            answer = connection.response()
            assert (answer.status, answer.text) == (200, str(size))


def test_requests_at_once_are_all_served(stopped, address):
    connections = [asks(address, head("GET", "/unread")) for _ in range(20)]
    for connection in connections:
        assert connection.response().body == b"not read"
        connection.close()


def test_a_worker_that_goes_on_serves_again_and_nothing_is_served_twice(serve, address, stats_at, tmp_path):
    server = serve("--http", address, "--wsgi-file", "probe.py", "--processes", 2, "--stats", stats_at)
    pids = [worker["pid"] for worker in server.wait_workers(2)["workers"]]
    record = tmp_path / "record"
    for pid in pids:
        stop(pid)
    asked = [asks(address, head("GET", f"/slow?go=/&record={record}")) for _ in range(2)]
    server.wait_stats(lambda document: document["listen_queue"] >= 0, "the requests are on their way")
    os.kill(pids[1], signal.SIGCONT)
    for connection in asked:
        assert connection.response().status == 200
        connection.close()
    os.kill(pids[0], signal.SIGCONT)
    assert len(record.read_text().splitlines()) == 2

    def both_serve() -> bool:
        held = [asks(address, head("GET", "/unread")) for _ in range(8)]
        for connection in held:
            assert connection.response().status == 200
            connection.close()
        return all(worker["requests"] > 0 for worker in server.stats()["workers"])

    until(both_serve, "both workers serve", context=server.log)
    assert len(record.read_text().splitlines()) == 2


def test_a_stopped_process_is_named_in_the_log_and_in_the_stats_until_it_goes_on(serve, address, stats_at):
    """Also one that has nothing to do, whatever sockets there are."""
    server = serve(
        *("--http-socket", address, "--wsgi-file", "probe.py", "--processes", 2, "--mules", 1, "--stats", stats_at)
    )
    first, second = [worker["pid"] for worker in server.wait_workers(2)["workers"]]
    assert [worker["unresponsive_for"] for worker in server.stats()["workers"]] == [0, 0]
    mule = until(lambda: [p.pid for p in server.processes() if p.name == "rwsgi mule1"], "the mule runs")[0]
    for pid in (first, mule):
        os.kill(pid, signal.SIGSTOP)
    try:
        server.logged(rf"worker 1 \(pid {first}\) .* stopped")
        server.logged(rf"mule 1 \(pid {mule}\) .* stopped")
        document = server.wait_stats(lambda document: document["workers"][0]["unresponsive_for"] > 3_000_000, "it is shown")
        assert document["workers"][1]["unresponsive_for"] == 0
        # Nobody has asked for more.
        assert [worker["pid"] for worker in document["workers"]] == [first, second]
    finally:
        for pid in (first, mule):
            os.kill(pid, signal.SIGCONT)
    server.logged(rf"worker 1 \(pid {first}\) goes on")
    server.wait_stats(lambda document: document["workers"][0]["unresponsive_for"] == 0, "it responds")
    assert len(server.lines(f"worker 1 (pid {first})")) == 2, server.log()


def test_with_harakiri_a_stopped_worker_is_replaced(serve, address, stats_at):
    server = serve("--http-socket", address, "--wsgi-file", "probe.py", "--harakiri", 4, "--stats", stats_at)
    old = server.wait_workers(1)["workers"][0]["pid"]
    os.kill(old, signal.SIGSTOP)
    document = server.wait_stats(
        lambda document: document["workers"][0]["accepting"] and document["workers"][0]["pid"] not in (0, old),
        "another serves in its place",
    )
    assert document["workers"][0]["recycled"]["harakiri"] == 1
    server.logged(rf"harakiri: worker 1 \(pid {old}\)")


def test_a_worker_that_hangs_while_it_should_serve_is_named(serve, address, stats_at, tmp_path):
    """A thread of the application's keeps Python's lock and never releases it: the others wait for it forever."""
    (tmp_path / "hang.py").write_text(
        "import ctypes, os, threading, time\n"
        "sleep = ctypes.PyDLL(None).sleep\n"
        "def hang():\n"
        "    while not os.path.exists('answered'):\n"
        "        time.sleep(0.01)\n"
        "    sleep(3600)\n"
        "def application(environ, start_response):\n"
        "    if environ['PATH_INFO'] == '/hang':\n"
        "        threading.Thread(target=hang).start()\n"
        "    start_response('200 OK', [('Content-Length', '2')])\n"
        "    return [b'ok']\n"
    )
    server = serve(
        *("--http", address, "--wsgi-file", "hang.py", "--enable-threads", "--harakiri", 6, "--stats", stats_at),
        cwd=tmp_path,
    )
    old = server.wait_workers(1)["workers"][0]["pid"]
    with asks(address, head("GET", "/hang")) as connection:
        assert connection.response().body == b"ok"
    # Not in the middle of that request.
    server.wait_stats(lambda d: d["workers"][0]["requests"] == 1 and d["workers"][0]["status"] == "idle", "it is over")
    (tmp_path / "answered").touch()

    def hangs() -> bool:
        with Connection(address) as connection:
            connection.send(head("GET", "/"))
            return bool(server.lines(f"worker 1 (pid {old})"))

    until(hangs, "it is named", context=server.log)
    server.logged(rf"worker 1 \(pid {old}\) .* begun")
    server.logged(rf"harakiri: worker 1 \(pid {old}\)")
    server.wait_stats(lambda document: document["workers"][0]["pid"] not in (0, old), "another takes its place")
