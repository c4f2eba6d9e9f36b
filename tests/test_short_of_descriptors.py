"""Few descriptors and many clients: what a server needs to serve is never taken by those who wait to be served."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack

import pytest

from rig import processes
from rig.addresses import tcp
from rig.http import Connection, head
from rig.server import Program, Servers

pytestmark = pytest.mark.only_rwsgi(why="a property of our processes")

LIMIT = 256
# More than the process may have open.
CLIENTS = 400


@pytest.fixture
def limited(program, tmp_path, stats_at):
    """Starts servers with few descriptors."""
    wrapper = tmp_path / "limited"
    wrapper.write_text(f'#!/bin/sh\nulimit -n ${{DESCRIPTORS:-{LIMIT}}}\nexec "{program.path}" "$@"\n')
    wrapper.chmod(0o755)
    servers = Servers(Program(str(wrapper)), tmp_path)

    def start(kind: str, processes: int = 1, *options: object):
        address = tcp()
        return address, servers(
            f"--{kind}", address, "--wsgi-file", "probe.py", "--processes", processes, "--listen", 1000,
            "--stats", stats_at, "--disable-logging", *options,
        )

    yield start
    servers.stop_all()


def crowd(stack: ExitStack, address: str) -> list[Connection]:
    """As many clients with half a request as cannot all be taken; the first of them was served."""
    clients = [stack.enter_context(Connection(address)) for _ in range(CLIENTS)]
    assert clients[0].request("GET", "/unread").status == 200
    for client in clients[1:]:
        client.send(head("GET", "/unread")[:10])
    return clients


def test_workers_that_are_replaced_link_again_though_clients_wait_for_descriptors(limited):
    address, server = limited("http", 2)
    before = [worker["pid"] for worker in server.wait_workers(2)["workers"]]
    with ExitStack() as stack:
        first, *_ = crowd(stack, address)
        for pid in before:
            processes.kill(pid)
        server.wait_stats(
            lambda document: all(w["accepting"] and w["pid"] not in (0, *before) for w in document["workers"]),
            "both are replaced",
        )
        assert first.request("GET", "/unread").status == 200
        # It was said, and once.
        assert len(server.logged("connections are open, as many as")) == 1


@pytest.mark.parametrize("kind", ["http", "http-socket"])
def test_clients_beyond_the_limit_wait_and_are_served_when_others_go(limited, kind):
    address, server = limited(kind)
    server.wait_workers(1)
    with ExitStack() as stack:
        clients = crowd(stack, address)
        waiting = stack.enter_context(Connection(address))
        waiting.send(head("GET", "/unread"))
        server.logged("connections are open, as many as")
        # The server has a few left for itself.
        for process in server.processes():
            assert len(process.open_files()) < LIMIT - 20, process
        assert not server.lines("cannot accept")
        # Those before it go: there is space for one that waits.
        for client in clients:
            client.close()
        assert waiting.response().status == 200


def test_an_application_can_open_files_while_clients_wait(limited, tmp_path):
    address, server = limited("http-socket")
    server.wait_workers(1)
    record = tmp_path / "record"
    with ExitStack() as stack:
        first, *_ = crowd(stack, address)
        server.logged("connections are open, as many as")
        assert first.request("GET", f"/slow?go=/&record={record}").status == 200
        assert record.exists()


def test_a_worker_that_is_full_keeps_no_client_from_one_that_has_room(limited):
    address, server = limited("http-socket", 2, "--http-keepalive=600")
    pids = [worker["pid"] for worker in server.wait_workers(2)["workers"]]
    # One worker alone is filled.
    processes.kill(pids[1], signal.SIGSTOP)
    try:
        with ExitStack() as stack:
            # More than it takes, and the rest fewer than the other does.
            for _ in range(200):
                stack.enter_context(Connection(address)).send(head("GET", "/unread"))
            server.logged("connections are open, as many as")
            processes.kill(pids[1], signal.SIGCONT)
            # For longer than it takes the full one to look whether it has room.
            end = time.monotonic() + 4
            while time.monotonic() < end:
                with Connection(address) as connection:
                    assert connection.request("GET", "/unread", {"Connection": "close"}).status == 200
    finally:
        processes.kill(pids[1], signal.SIGCONT)


def test_a_worker_with_few_descriptors_and_many_links_takes_clients_of_its_own(limited, monkeypatch):
    monkeypatch.setenv("DESCRIPTORS", "125")
    own = tcp()
    _, server = limited("http", 1, "--http-socket", own, "--threads", 80)
    server.wait_workers(1)
    with Connection(own) as connection:
        assert connection.request("GET", "/unread").status == 200
