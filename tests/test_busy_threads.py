"""Clients that wait for a thread, while all are busy for longer than any client may make a thread wait: none of them is late."""

from __future__ import annotations

import pytest

from rig.http import Connection, head
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="a property of our event loop")

LENGTH = 20_000_000
# How long a client may make a thread wait, s: on a busy machine one takes that long for nothing but its next line.
PATIENCE = 5
APP = """
import os, time

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/busy":
        time.sleep(PATIENCE + 2)
    while path == "/brief" and not os.path.exists("go"):
        time.sleep(0.01)
    body = b"w" * (LENGTH if path == "/large" else 4)
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


@pytest.fixture(params=[1, 2])
def threads(request):
    """How many threads the worker has."""
    return request.param


@pytest.fixture
def server(serve, address, stats_at, tmp_path, threads):
    """A worker whose clients are late before a busy thread is free."""
    (tmp_path / "busy.py").write_text(APP.replace("LENGTH", str(LENGTH)).replace("PATIENCE", str(PATIENCE)))
    return serve(
        "--http-socket", address, "--chdir", tmp_path, "--wsgi-file", "busy.py", "--threads", threads, "--stats", stats_at,
        "--socket-timeout", PATIENCE, f"--http-keepalive={PATIENCE}",
    )


def hold(server, address: str, threads: int) -> list[Connection]:
    """Keeps all threads busy."""
    held = [Connection(address) for _ in range(threads)]
    for connection in held:
        connection.send(head("GET", "/busy"))
    until(lambda: busy(server) == threads, "all threads are busy", context=server.log)
    return held


def busy(server) -> int:
    return sum(core["in_request"] for core in server.stats()["workers"][0]["cores"])


def test_a_client_that_takes_a_response_as_fast_as_it_comes_gets_all_of_it(server, address, threads):
    with Connection(address) as client:
        client.send(head("GET", "/large"))
        # It has begun, and more waits than the kernel takes.
        client.socket.recv(1, 0x2)
        until(lambda: server.stats()["workers"][0]["requests"] == 1, "it is answered")
        held = hold(server, address, threads)
        assert client.response().body == b"w" * LENGTH
    for connection in held:
        assert connection.response().status == 200
        connection.close()


@pytest.mark.parametrize("begun", [b"", b"GET / HT"])
def test_a_request_that_has_come_while_no_thread_was_free_is_served(server, address, threads, begun):
    with Connection(address) as client:
        client.send(begun)
        held = hold(server, address, threads)
        client.send(head("GET", "/").removeprefix(begun))
        assert client.response().status == 200
    for connection in held:
        assert connection.response().status == 200
        connection.close()


def test_of_requests_that_were_sent_at_once_all_are_served(server, address, threads, tmp_path):
    held = hold(server, address, threads - 1)
    with Connection(address) as client, Connection(address) as other:
        client.send(head("GET", "/brief") * 3)
        until(lambda: busy(server) == threads, "the first of them is served", context=server.log)
        # It has come before the second one's turn.
        other.send(head("GET", "/busy"))
        (tmp_path / "go").touch()
        for _ in range(3):
            assert client.response().status == 200
        assert other.response().status == 200
    for connection in held:
        assert connection.response().status == 200
        connection.close()
