"""Bodies and responses that do not fit in memory have a budget on disk: past it large bodies get 503 and slow readers wait, and nobody
else loses anything."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from rig import uwsgi
from rig.addresses import tcp
from rig.http import Connection, head
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="a property of our processes")

MEGABYTE = 1 << 20
STEP = MEGABYTE


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 16 MB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", disk], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def deleted_files(server, directory: Path) -> dict[tuple[int, int], int]:
    """Bytes of each file without a name in a directory, by the process that has it and its inode."""
    sizes: dict[tuple[int, int], int] = {}
    for process in server.processes():
        with suppress(FileNotFoundError, ProcessLookupError):
            for fd in Path(f"/proc/{process.pid}/fd").iterdir():
                with suppress(FileNotFoundError, ProcessLookupError):
                    link = os.readlink(fd)
                    if link.startswith(f"{directory}/") and link.endswith("(deleted)"):
                        about = fd.stat()
                        sizes[process.pid, about.st_ino] = about.st_size
    return sizes


def on_disk(server, directory: Path) -> int:
    """Bytes in all of them, and never more than there were at once: of a file that one look found and a later one did not, or
    shorter, the space may have gone to another."""
    first, second = deleted_files(server, directory), deleted_files(server, directory)
    return sum(min(size, second.get(which, 0)) for which, size in first.items())


def in_use(server) -> int:
    """What the server says of it."""
    return server.stats()["temp_files"]["bytes"]


def post(address: str, size: int):
    """The answer to a body of this size."""
    with Connection(address) as connection:
        return connection.request("POST", "/count", body=b"x" * size)


def slow_reader(stack: ExitStack, address: str, size: int) -> Connection:
    """A client that has asked for a large response, and reads nothing of it."""
    client = stack.enter_context(Connection(address))
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    client.send(head("GET", f"/large?bytes={size}"))
    return client


def test_slow_readers_have_no_more_on_disk_than_temp_size_and_lose_nothing(serve, stats_at, address, tmp_path):
    limit, size, count = 40 * MEGABYTE, 16 * MEGABYTE, 12
    server = serve(
        "--http", address, "--wsgi-file", "probe.py", "--threads", count, "--temp-dir", tmp_path, "--temp-size", "40m",
        "--stats", stats_at, "--disable-logging", "--http-timeout", 600,
    )
    most = 0

    def look() -> int:
        nonlocal most
        most = max(most, on_disk(server, tmp_path), in_use(server))
        return most

    with ExitStack() as stack:
        clients = [slow_reader(stack, address, size) for _ in range(count)]
        until(lambda: look() > limit - count * STEP, "the space is used up", context=server.log)
        server.logged("its worker waits: temporary files have reached temp-size")
        for client in clients:
            look()
            answer = client.response()
            assert answer.status == 200 and answer.body == b"y" * size
    assert look() <= limit
    until(lambda: in_use(server) == 0 and on_disk(server, tmp_path) == 0, "all space is free again")
    assert server.stats()["temp_files"] == {"dir": str(tmp_path), "bytes": 0, "limit": limit, "refused": 0}


@pytest.mark.parametrize("route", ["large", "pieces"])
def test_a_worker_of_the_http_router_waits_as_long_as_the_router_does(serve, stats_at, address, tmp_path, route):
    size = 12 * MEGABYTE
    server = serve(
        "--http", address, "--wsgi-file", "slow.py", "--temp-dir", tmp_path, "--temp-size", "4m", "--stats", stats_at,
        "--socket-timeout", 1,
    )
    with Connection(address) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.send(head("GET", f"/{route}?{size}"))
        server.logged("its worker waits: temporary files have reached temp-size")
        began = server.stats()["now"]
        until(lambda: server.stats()["now"] - began > 4_000_000, "several of the worker's timeouts are over")
        assert client.response().body == b"y" * size
    until(lambda: in_use(server) == 0, "nothing is left")


def test_finished_responses_of_a_worker_wait_in_little_memory_and_then_in_files(serve, stats_at, address, tmp_path):
    size, count, memory = 8 * MEGABYTE, 30, 64 * MEGABYTE
    server = serve(
        "--http-socket", address, "--wsgi-file", "probe.py", "--temp-dir", tmp_path, "--stats", stats_at, "--disable-logging"
    )
    worker = server.wait_workers(1)["workers"][0]["pid"]
    (before,) = (process.rss for process in server.processes() if process.pid == worker)
    with ExitStack() as stack:
        clients = [slow_reader(stack, address, size) for _ in range(count)]
        until(lambda: server.stats()["workers"][0]["requests"] == count, "all are answered", context=server.log)
        (after,) = (process.rss for process in server.processes() if process.pid == worker)
        # What the kernel keeps of each is not ours.
        assert after - before < memory + 4 * size, f"{after - before} bytes for {count} clients"
        assert on_disk(server, tmp_path) > memory
        for client in clients:
            answer = client.response()
            assert answer.status == 200 and answer.body == b"y" * size
    until(lambda: in_use(server) == 0, "nothing is left")


def test_a_worker_s_thread_waits_for_a_slow_reader_where_there_is_no_space(serve, stats_at, address, tmp_path):
    size, count = 8 * MEGABYTE, 12
    server = serve(
        "--http-socket", address, "--wsgi-file", "probe.py", "--temp-dir", tmp_path, "--temp-size", "4m", "--stats", stats_at,
        "--threads", count,
    )
    with ExitStack() as stack:
        clients = [slow_reader(stack, address, size) for _ in range(count)]
        server.logged("its worker waits: temporary files have reached temp-size")
        for client in clients:
            assert client.response().body == b"y" * size
    until(lambda: in_use(server) == 0, "nothing is left")


@pytest.mark.parametrize("kind", ["http", "http-socket"])
def test_what_a_killed_process_held_is_free_again(serve, stats_at, address, tmp_path, kind):
    server = serve(
        f"--{kind}", address, "--wsgi-file", "probe.py", "--temp-dir", tmp_path, "--temp-size", "12m", "--stats", stats_at,
    )
    server.wait_workers(1)
    with Connection(address) as client:
        client.send(head("POST", "/count", {"Content-Length": str(10 * MEGABYTE)}) + b"x" * 8 * MEGABYTE)
        until(lambda: on_disk(server, tmp_path) >= 8 * MEGABYTE, "most of the body is on disk")
        assert 8 * MEGABYTE <= in_use(server) <= 12 * MEGABYTE
        (holder,) = {pid for pid, _ in deleted_files(server, tmp_path)}
        os.kill(holder, signal.SIGKILL)
        until(lambda: in_use(server) == 0, "what it held is free", context=server.log)
    until(lambda: post_is_served(address, 10 * MEGABYTE), "its successor has the space", context=server.log)


def post_is_served(address: str, size: int) -> bool:
    """Whether a body of this size is taken."""
    try:
        return post(address, size).status == 200
    except OSError:
        return False


@pytest.mark.parametrize("kind", ["http", "http-socket"])
def test_a_body_beyond_the_space_gets_503_and_a_small_one_is_served(serve, stats_at, address, tmp_path, kind):
    socket_address = tcp()
    server = serve(
        f"--{kind}", address, "--socket", socket_address, "--wsgi-file", "probe.py", "--temp-dir", tmp_path,
        "--temp-size", "4m", "--stats", stats_at,
    )
    with Connection(address) as client:
        # Before any of it has come.
        client.send(head("POST", "/count", {"Content-Length": str(8 * MEGABYTE), "Expect": "100-continue"}))
        answer = client.response()
    assert (answer.status, answer.interim, answer.header("Connection")) == (503, [], "close")
    assert int(answer.header("Retry-After")) > 0
    with Connection(address) as client:
        client.send(head("POST", "/count", {"Transfer-Encoding": "chunked"}))
        chunk = b"%x\r\n" % MEGABYTE + b"x" * MEGABYTE + b"\r\n"
        with suppress(ConnectionError):
            # Who is refused may go on for two seconds, which a busy machine may not have for it. The answer is there to read.
            while not select.select([client.socket], [], [], 0)[0]:
                client.send(chunk)
        assert client.response().status == 503
    assert uwsgi.request(socket_address, "POST", "/count", body=b"x" * 8 * MEGABYTE).status == 503
    assert [post(address, size).body for size in (10, 3 * MEGABYTE)] == [b"10", b"3145728"]
    until(lambda: in_use(server) == 0, "nothing is left")
    server.wait_stats(lambda document: document["temp_files"]["refused"] == 3, "all are counted")


def test_a_flood_of_bodies_beyond_the_space_writes_few_lines_and_is_counted(serve, stats_at, address, tmp_path):
    server = serve(
        "--http", address, "--wsgi-file", "probe.py", "--temp-dir", tmp_path, "--temp-size", "4m", "--stats", stats_at
    )
    begun = time.monotonic()
    for _ in range(200):
        with Connection(address) as client:
            client.send(head("POST", "/count", {"Content-Length": str(8 * MEGABYTE)}))
            assert client.response().status == 503
    # 20 lines in 10 seconds.
    most = 20 * (1 + int((time.monotonic() - begun) / 10))
    server.wait_stats(lambda document: document["temp_files"]["refused"] == 200, "all are counted")
    assert 0 < len(server.lines("a request body cannot be kept")) <= most


@pytest.mark.parametrize("kind", ["http", "http-socket"])
def test_a_full_disk_costs_nobody_else_a_request(serve, address, small_disk, kind):
    server = serve(f"--{kind}", address, "--wsgi-file", "probe.py", "--threads", 4, env={"TMPDIR": str(small_disk)})
    filler = small_disk / "filler"
    with filler.open("wb") as file, suppress(OSError):
        while True:
            file.write(b"x" * MEGABYTE)
            file.flush()
    with ExitStack() as stack:
        slow = [slow_reader(stack, address, 6 * MEGABYTE) for _ in range(2)]
        with Connection(address) as client:
            with suppress(ConnectionError):
                # It may be refused before all is sent.
                client.send(head("POST", "/count", {"Content-Length": str(4 * MEGABYTE)}) + b"x" * 2 * MEGABYTE)
            answer = client.response()
        assert answer.status == 503
        server.logged("No space left on device")
        assert post(address, 1000).body == b"1000"
        for client in slow:
            answer = client.response()
            assert answer.status == 200 and answer.body == b"y" * 6 * MEGABYTE, server.log()
    filler.unlink()
    assert post(address, 4 * MEGABYTE).body == b"4194304"


@pytest.mark.parametrize("given", ["TMPDIR", "env", "temp-dir"])
def test_the_directory_is_the_one_that_was_named(serve, stats_at, address, tmp_path, given):
    arguments = {"TMPDIR": [], "env": ["--env", f"TMPDIR={tmp_path}"], "temp-dir": ["--temp-dir", tmp_path]}[given]
    environment = {"TMPDIR": str(tmp_path if given == "TMPDIR" else "/proc")}
    server = serve(
        "--http", address, "--wsgi-file", "probe.py", "--stats", stats_at, *arguments, env=environment
    )
    with Connection(address) as client:
        client.send(head("POST", "/count", {"Content-Length": str(3 * MEGABYTE)}) + b"x" * 2 * MEGABYTE)
        until(lambda: on_disk(server, tmp_path) > 0, "a part of the body is there", context=server.log)
        assert server.stats()["temp_files"]["dir"] == str(tmp_path)
        client.send(b"x" * MEGABYTE)
        assert client.response().body == b"3145728"


def test_a_directory_that_cannot_be_written_to_ends_the_start(serve, address):
    server = serve.run("--http", address, "--wsgi-file", "probe.py", "--temp-dir", "/proc")
    assert server.process.returncode != 0
    assert server.lines("temp-dir: cannot make a temporary file in '/proc'"), server.log()


def test_little_space_is_warned_of_and_the_default_is_half_of_what_is_free(serve, stats_at, address, small_disk):
    server = serve("--http", address, "--wsgi-file", "probe.py", "--stats", stats_at, "--temp-dir", small_disk)
    assert server.stats()["temp_files"]["limit"] // MEGABYTE in range(7, 9)
    server.logged(r"may hold only \d MB \(temp-size\)")
