"""Bodies that are announced, and bodies that come, under a limit of memory: nobody dies, and clients that cannot be served get 503."""

from __future__ import annotations

import select
from contextlib import ExitStack

import pytest

from rig.addresses import tcp
from rig.http import Closed, Connection, head
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="a property of our processes")

MEGABYTE = 1 << 20
ANNOUNCED = 60 * MEGABYTE


@pytest.fixture(params=["http", "http-socket"])
def limited(request, serve, stats_at):
    """A server whose processes may have 500 MB of addresses, and bodies in memory however large."""
    address = tcp()
    server = serve(
        f"--{request.param}", address, "--wsgi-file", "probe.py", "--limit-as", 500, "--post-buffering", 1 << 30,
        "--stats", stats_at, "--disable-logging",
    )
    server.wait_workers(1)
    return address, server


def children(server) -> set[int]:
    """The processes that serve."""
    return {process.pid for process in server.processes() if process.pid != server.pid}


def test_announcing_large_bodies_costs_nothing(limited):
    address, server = limited
    before = children(server)
    with ExitStack() as stack:
        for _ in range(300):
            client = stack.enter_context(Connection(address))
            client.send(head("POST", "/count", {"Content-Length": str(ANNOUNCED)}) + b"x")
        with Connection(address) as other:
            assert other.request("GET", "/unread").status == 200
    assert children(server) == before, server.log()
    assert not server.lines("died")


def test_bodies_that_memory_cannot_hold_are_refused_with_503(limited):
    address, server = limited
    before = children(server)
    with ExitStack() as stack:
        clients = [stack.enter_context(Connection(address)) for _ in range(12)]
        for client in clients:
            client.send(head("POST", "/count", {"Content-Length": str(ANNOUNCED)}))
        answers = [answer_to_most_of_it(client) for client in clients]
        # As many as memory holds wait for the rest; the others get 503, unless a reset was faster.
        assert None in answers and 503 in answers and set(answers) <= {None, 503, 0}, answers
        server.logged("cannot be kept")
    until(lambda: serves(address), "it serves on", context=server.log)
    assert children(server) == before, server.log()


def answer_to_most_of_it(client: Connection) -> int | None:
    """Sends all of a body but a megabyte; the status of an answer that comes before, 0 for a reset."""
    try:
        for _ in range(ANNOUNCED // MEGABYTE - 1):
            client.send(b"x" * MEGABYTE)
            if select.select([client.socket], [], [], 0)[0]:
                return client.response().status
    except (Closed, ConnectionError):
        return 0
    return None


def serves(address: str) -> bool:
    """Whether a request is answered."""
    with Connection(address) as connection:
        return connection.request("GET", "/unread").status == 200
