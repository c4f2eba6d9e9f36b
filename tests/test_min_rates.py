"""A client that is slower than it may be is closed, whichever way it is slow, and others are not."""

from __future__ import annotations

import select
import socket
from contextlib import ExitStack, suppress

import pytest

from rig import uwsgi
from rig.addresses import free_port, tcp
from rig.http import Connection, head
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI has no such limits")

SIZE = 1 << 20


class Sender:
    """A client that sends a body a few bytes at a time, each time that it is asked for more."""

    def __init__(self, address: str, pace: int) -> None:
        self.connection = Connection(address)
        self.pace = pace
        self.left = SIZE
        self.connection.send(head("POST", "/count", {"Content-Length": str(SIZE)}))

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def is_answered(self) -> bool:
        """Sends a little more, unless there is an answer."""
        if select.select([self.connection.socket], [], [], 0)[0]:
            return True
        with suppress(ConnectionError):
            self.connection.send(b"x" * self.pace)
            self.left -= self.pace
        return False

    def finish(self):
        """Sends the rest, and reads the answer."""
        self.connection.send(b"x" * self.left)
        return self.connection.response()


@pytest.mark.parametrize("kind", ["http", "http-socket"])
def test_a_body_that_drips_gets_408_and_one_that_keeps_the_rate_is_served(serve, stats_at, address, kind):
    server = serve(
        f"--{kind}", address, "--wsgi-file", "probe.py", "--body-min-rate", 2000, "--min-rate-grace", 3, "--stats", stats_at,
        "--socket-timeout", 4, "--http-timeout", 4,
    )
    with Sender(address, 1000) as steady, Sender(address, 1) as dripping:
        until(lambda: steady.is_answered() or dripping.is_answered(), "one of them is ended", context=server.log)
        answer = dripping.connection.response()
        assert (answer.status, answer.header("Connection")) == (408, "close")
        assert steady.finish().body == str(SIZE).encode()
    server.wait_stats(lambda document: document["slow_clients"] == 1, "it is counted")
    server.logged("408 the request body comes too slowly")


def test_a_rate_that_is_given_holds_for_the_uwsgi_protocol_too(serve, stats_at):
    address = tcp()
    server = serve(
        "--socket", address, "--wsgi-file", "probe.py", "--body-min-rate", 2000, "--min-rate-grace", 1, "--stats", stats_at
    )
    with Connection(address) as client:
        client.send(uwsgi.packet(uwsgi.variables("POST", "/count", {"Content-Length": str(SIZE)})))

        def is_ended() -> bool:
            if select.select([client.socket], [], [], 0)[0]:
                return True
            with suppress(ConnectionError):
                client.send(b"x")
            return False

        until(is_ended, "it is ended", context=server.log)
        assert client.response().status == 408
    server.wait_stats(lambda document: document["slow_clients"] == 1, "it is counted")


@pytest.mark.parametrize("kind", ["http", "http-socket"])
def test_clients_are_hurried_where_they_connect_themselves_and_proxies_are_not(serve, stats_at, kind):
    port, proxied = free_port(), tcp()
    server = serve(
        f"--{kind}", f"0.0.0.0:{port}", f"--{kind}", proxied, "--wsgi-file", "probe.py", "--min-rate-grace", 2,
        "--stats", stats_at,
    )
    with Sender(proxied, 1) as proxy, Sender(f"127.0.0.1:{port}", 1) as client:
        until(lambda: proxy.is_answered() or client.is_answered(), "one of them is ended", context=server.log)
        assert client.connection.response().status == 408
        assert proxy.finish().status == 200
    server.wait_stats(lambda document: document["slow_clients"] == 1, "it is counted")


@pytest.mark.parametrize("route", ["large", "pieces"])
@pytest.mark.parametrize("kind", ["http", "http-socket"])
def test_a_client_that_takes_its_response_in_drips_is_closed_and_one_that_keeps_the_rate_gets_all(
    serve, stats_at, address, kind, route
):
    size = 30 << 20
    server = serve(
        f"--{kind}", address, "--wsgi-file", "slow.py", "--response-min-rate", 100_000, "--min-rate-grace", 3,
        "--threads", 4, "--stats", stats_at,
    )

    with ExitStack() as stack:
        steady, dripping = (stack.enter_context(Connection(address)) for _ in range(2))
        dripping.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        for client in (steady, dripping):
            client.send(head("GET", f"/{route}?{size}"))
        received = 0

        def is_ended() -> bool:
            nonlocal received
            received += len(steady.socket.recv(65536))
            dripping.socket.recv(10)
            return server.stats()["slow_clients"] > 0

        until(is_ended, "the slow one is closed", context=server.log)
        while more := len(steady.socket.recv(1 << 20)):
            received += more
        assert received > size
        assert len(all_that_comes(dripping)) < size
    server.wait_stats(lambda document: document["slow_clients"] == 1, "it is counted")
    server.logged("127.0.0.1 takes its response too slowly")


def all_that_comes(client: Connection) -> bytes:
    """What is left to read, until the end or a reset."""
    pieces = []
    with suppress(ConnectionError):
        while piece := client.socket.recv(1 << 20):
            pieces.append(piece)
    return b"".join(pieces)
