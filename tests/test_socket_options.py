"""What is asked of the kernel for sockets: addresses that are shared or not there yet, buffers, sockets of some workers."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
from pathlib import Path

import pytest

from rig import http, stats
from rig.addresses import tcp
from rig.waiting import until

APP = ("--master", "--wsgi-file", "worklife.py")


def listening_sockets(pid, port):
    """Copies of a process's sockets that listen on a port."""
    libc = ctypes.CDLL(None, use_errno=True)
    process = os.pidfd_open(pid)
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            # One that is closed meanwhile is none that listens.
            if not entry.is_socket():
                continue
            # pidfd_getfd
            copy = libc.syscall(438, process, int(entry.name), 0)
            if copy < 0:
                continue
            with socket.socket(fileno=copy) as found:
                is_it = found.family == socket.AF_INET and found.getsockname()[1] == port
                if is_it and found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    yield found
    finally:
        os.close(process)


def test_two_servers_share_an_address(serve, address, tmp_path):
    first = serve("--http-socket", address, *APP, "--reuse-port")
    second = serve("--http-socket", address, *APP, "--reuse-port")
    seen = set()

    def both() -> bool:
        seen.add(int(http.get(address, "/").body))
        return len(seen) == 2

    until(both, "each has answered", context=lambda: first.log() + second.log())


def test_an_address_may_come_later(serve, tmp_path):
    """TEST-NET-1 (RFC 5737) is nobody's."""
    port = tcp().rsplit(":", 1)[1]
    here = tcp()
    server = serve("--http-socket", f"192.0.2.1:{port}", "--http-socket", here, *APP, "--freebind")
    assert http.get(here, "/").status == 200
    assert list(listening_sockets(server.pid, int(port)))


@pytest.mark.skipif(os.geteuid() != 0, reason="another process's descriptors are root's to see")
def test_buffers_have_the_size_that_is_asked_for(serve, address):
    server = serve("--http-socket", address, *APP, "--socket-sndbuf", 16384, "--socket-rcvbuf", 32768)
    port = int(address.rsplit(":", 1)[1])
    # The kernel doubles what it is asked for.
    sizes = {(found.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF), found.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))
             for found in listening_sockets(server.pid, port)}
    assert sizes == {(32768, 65536)}
    assert http.get(address, "/").status == 200


def defers(server, address):
    """For how many seconds the kernel keeps a client that has said nothing (0: it does not)."""
    found = listening_sockets(server.pid, int(address.rsplit(":", 1)[1]))
    return {one.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) for one in found}


@pytest.mark.only_rwsgi(why="its http router accepts at once")
@pytest.mark.skipif(os.geteuid() != 0, reason="another process's descriptors are root's to see")
def test_clients_are_accepted_with_their_first_byte(serve, address, stats_at):
    """Who reads the stats says nothing first."""
    router = tcp()
    server = serve("--http-socket", address, "--http", router, *APP, "--stats", stats_at)
    assert defers(server, address) != {0}
    assert defers(server, router) == defers(server, address)
    assert defers(server, stats_at) == {0}
    assert http.get(address, "/").status == http.get(router, "/").status == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="another process's descriptors are root's to see")
def test_clients_are_accepted_at_once_if_that_is_asked_for(serve, address):
    server = serve("--http-socket", address, *APP, "--no-defer-accept")
    assert defers(server, address) == {0}
    assert http.get(address, "/").status == 200


@pytest.mark.only_rwsgi(why="it keeps such a client until that connects a second time")
@pytest.mark.parametrize("option", ["--http-socket", "--http"])
def test_a_client_that_says_nothing_is_accepted_all_the_same(serve, address, option):
    serve(option, address, *APP, "--socket-timeout", 1, "--http-timeout", 1)
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as client:
        assert client.recv(1) == b"", "nobody closes it"


@pytest.mark.only_rwsgi(why="it counts in another way")
def test_clients_that_were_accepted_are_none_that_were_turned_away(serve, address, stats_at):
    """The kernel counts them together."""
    before = stats.turned_away()
    serve("--http-socket", address, *APP, "--stats", stats_at)
    for _ in range(50):
        assert http.get(address, "/").status == 200
    # Other tests' may have been meanwhile.
    assert stats.read(stats_at)["listen_queue_errors"] <= stats.turned_away() - before


def test_a_socket_is_for_some_workers(serve, stats_at):
    """They are counted as they are written, whatever they speak."""
    first, second, third = tcp(), tcp(), tcp()
    server = serve(
        "--socket", first, "--http-socket", second, "--http-socket", third, *APP, "--processes", 3, "--stats", stats_at,
        "--map-socket", "1:2", "--map-socket", "2:1,3",
    )
    workers = {worker["id"]: worker["pid"] for worker in server.wait_workers(3)["workers"]}
    assert {int(http.get(second, "/").body) for _ in range(20)} == {workers[2]}
    assert {int(http.get(third, "/").body) for _ in range(20)} <= {workers[1], workers[3]}


def test_a_unix_socket_can_be_without_a_file(serve, tmp_path):
    path = tmp_path / "app.sock"
    serve(f"--http-socket={path}", *APP, "--abstract-socket", listens=[f"@{path}"])
    assert not path.exists()
    assert http.get(f"@{path}", "/").status == 200


@pytest.mark.only_rwsgi(why="the log's words")
def test_a_socket_is_not_for_a_worker_that_there_is_not(serve, address):
    server = serve.run("--http-socket", address, *APP, "--processes", 2, "--map-socket", "0:3")
    assert "there is no worker 3" in server.log()


@pytest.mark.only_rwsgi(why="its default is 100, and it refuses what is longer than the limit of the system")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a network")
@pytest.mark.parametrize(("asked", "length"), [([], 8192), (["--listen", "6000"], 6000)])
def test_a_backlog_is_as_long_as_the_system_allows_or_as_it_is_asked_for(program, tmp_path, asked, length):
    """Whatever the C library takes for the limit: a network has one of its own."""
    fresh = ["unshare", "--net", "sh", "-c", 'echo 8192 >/proc/sys/net/core/somaxconn && exec "$0" "$@"']
    if subprocess.run([*fresh, "true"], capture_output=True).returncode != 0:
        pytest.skip("no network with a limit of its own can be made here")
    options = ["--http-socket", tmp_path / "web", "--stats", tmp_path / "stats", "--wsgi-file", "foobar.py", *asked]
    server = subprocess.Popen([*fresh, program.path, *options], cwd=Path(__file__).parent / "apps", stderr=subprocess.DEVNULL)

    def document():
        try:
            return stats.read(str(tmp_path / "stats"))
        except OSError:
            return None

    try:
        assert until(document, "it has begun")["sockets"][0]["max_queue"] == length
        server.terminate()
        assert server.wait(30) == 0
    finally:
        server.kill()
        server.wait()
