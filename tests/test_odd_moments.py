"""Stops and reloads at odd moments: while something loads, or while a process is gone and not there again yet."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from rig import http, processes
from rig.http import Connection
from rig.server import Server
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI has no fork server, and its router is another one")

# What it does while it is imported is what a test changes for a reload.
APP = """
import os, time
{at_import}
def until_there(path):
    while not os.path.exists(path):
        time.sleep(0.01)
def application(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        open("slow", "w").close()
        until_there("go")
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]
"""
# Loads until the file is there, for a minute at most: what is left behind must not stay for ever.
LOADS_UNTIL = """
open("loading", "w").close()
end = time.monotonic() + 60
while not os.path.exists("{path}") and time.monotonic() < end:
    time.sleep(0.01)
"""


def write(directory: Path, at_import: str = "") -> None:
    """Writes the application, which does this while it is loaded."""
    (directory / "app.py").write_text(APP.format(at_import=at_import))


def only(server: Server, name: str) -> int:
    """The process id of the one process of this name."""
    found = until(lambda: [p for p in server.processes() if p.name == name], f"a process {name}", context=server.log)
    assert len(found) == 1, found
    return found[0].pid


def waiting(address: str) -> Connection:
    """A client that has sent a request which nobody can answer yet."""
    connection = Connection(address)
    connection.send(http.head("GET", "/", {"Connection": "close"}))
    return connection


@pytest.mark.parametrize("by", ["failure", "SIGTERM"])
def test_a_client_that_waits_does_not_hold_up_the_end_of_a_server_that_has_never_served(serve, address, tmp_path, by):
    write(tmp_path, LOADS_UNTIL.format(path="go") + "raise RuntimeError('broken')")
    server = serve("--http", address, "--wsgi-file", "app.py", cwd=tmp_path)
    until((tmp_path / "loading").exists, "the application loads", context=server.log)
    with waiting(address) as connection, Connection(address) as half:
        half.send(b"GET / HTTP/1.1\r\n")
        server.logged("http router started")
        if by == "failure":
            (tmp_path / "go").touch()
        else:
            server.send(signal.SIGTERM)
        assert server.wait_exit() == (22 if by == "failure" else 0), server.log()
        assert connection.closed_by_server()
    server.wait_gone()


def test_a_stop_while_no_router_runs_does_not_wait_for_one(serve, address, stats_at, tmp_path):
    write(tmp_path)
    server = serve("--http", address, "--wsgi-file", "app.py", "--stats", stats_at, cwd=tmp_path)
    server.wait_workers(1)
    # Each dies earlier than the one before could have served, so that the last is waited with.
    for deaths in range(1, 9):
        processes.kill(only(server, "rwsgi http"))
        died = server.logged(r"http router \(pid \d+\) died: .*", deaths)[-1].group()
        if "starting another in" in died:
            break
    worker = server.stats()["workers"][0]["pid"]
    # The worker has lost its link, and makes another that nobody accepts.
    linked_again(worker)
    server.send(signal.SIGTERM)
    assert server.wait_exit() == 0, server.log()
    server.wait_gone()


def linked_again(worker: int) -> None:
    """Waits until a worker has a connection to the router's private socket that nobody has accepted."""

    def is_connected() -> bool:
        inodes = set()
        for fd in Path(f"/proc/{worker}/fd").iterdir():
            try:
                target = os.readlink(fd)
            except FileNotFoundError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
        # proc(5), /proc/net/unix: state 03 is connected, 02 connecting (waiting to be accepted); type 0001 a stream.
        rows = [row.split() for row in Path("/proc/net/unix").read_text().splitlines()[1:]]
        return any(row[6] in inodes and row[4] == "0001" and row[5] in ("02", "03") for row in rows)

    until(is_connected, "the worker links again")


def test_what_waits_at_the_router_when_a_reload_is_cut_short_by_a_stop_is_served(serve, address, stats_at, tmp_path):
    """Also when the worker is gone by then, as a supervisor has it that signals the whole group."""
    write(tmp_path)
    server = serve("--http", address, "--wsgi-file", "app.py", "--stats", stats_at, cwd=tmp_path)
    worker = server.wait_workers(1)["workers"][0]["pid"]
    write(tmp_path, LOADS_UNTIL.format(path="loaded"))
    server.send(signal.SIGHUP)
    until((tmp_path / "loading").exists, "the next generation loads", context=server.log)
    with Connection(address) as slow, waiting_behind(slow, address, tmp_path) as queued:
        # What has not been accepted by a router that stops is not its own.
        server.wait_stats(lambda document: document["queue"]["depth"] == 1, "a request waits at the router")
        server.send(signal.SIGTERM)
        server.logged("SIGTERM: stopping")
        (tmp_path / "loaded").touch()
        server.logged("generation 2 .* loaded")
        processes.kill(worker)
        assert queued.response().status == 200, server.log()
    assert server.wait_exit() == 0, server.log()
    server.wait_gone()


def waiting_behind(slow: Connection, address: str, directory: Path) -> Connection:
    """A client that waits at the router while the only thread serves `slow`."""
    slow.send(http.head("GET", "/slow"))
    until((directory / "slow").exists, "the only thread is busy")
    return waiting(address)


def test_an_application_that_was_overtaken_while_it_loaded_does_not_hold_up_a_stop(serve, address, stats_at, tmp_path):
    write(tmp_path)
    server = serve("--http-socket", address, "--wsgi-file", "app.py", "--stats", stats_at, cwd=tmp_path)
    server.wait_workers(1)
    write(tmp_path, LOADS_UNTIL.format(path="never"))
    server.send(signal.SIGHUP)
    until((tmp_path / "loading").exists, "the next generation loads", context=server.log)
    write(tmp_path)
    server.send(signal.SIGHUP)
    server.logged("generation 1 has left")
    server.send(signal.SIGTERM)
    assert server.wait_exit() == 0, server.log()
    server.wait_gone()


def test_the_router_does_not_hold_the_sockets_of_the_workers(serve, address, stats_at, tmp_path):
    write(tmp_path)
    unix = tmp_path / "app.sock"
    server = serve(
        *("--http", address, "--socket", unix, "--wsgi-file", "app.py", "--stats", stats_at), cwd=tmp_path
    )
    worker = server.wait_workers(1)["workers"][0]["pid"]
    listening = {
        row.split()[6]
        for row in Path("/proc/net/unix").read_text().splitlines()
        if row.endswith(str(unix))
    }
    assert listening & sockets_of(worker), "the worker accepts from it"
    # It serves, so that it has begun whole.
    assert http.get(address, "/").status == 200
    assert not listening & sockets_of(only(server, "rwsgi http"))


def sockets_of(pid: int) -> set[str]:
    """The inodes of the sockets that a process holds."""
    return {target[8:-1] for target in processes.look(pid).open_files() if target.startswith("socket:[")}


def test_systemd_is_told_the_end_of_a_reload_while_no_worker_runs(serve, address, tmp_path):
    write(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        received: list[str] = []

        def told(line: str) -> bool:
            while True:
                try:
                    received.extend(systemd.recv(65536).decode().split("\n"))
                except BlockingIOError:
                    return line in received

        server = serve(
            *("--http-socket", address, "--wsgi-file", "app.py", "--cheap"),
            cwd=tmp_path,
            env={"NOTIFY_SOCKET": str(tmp_path / "notify")},
        )
        until(lambda: told("READY=1"), "it is ready", context=server.log)
        received.clear()
        server.send(signal.SIGHUP)
        until(lambda: told("RELOADING=1"), "it reloads", context=server.log)
        until(lambda: told("READY=1"), "it is ready again", context=server.log)
