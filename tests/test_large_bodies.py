"""Large bodies through the http router, whichever way they take inside the server: all bytes arrive, and nobody's bytes with anybody
else."""

from __future__ import annotations

import hashlib
import random
import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from rig import processes
from rig.addresses import tcp
from rig.http import Closed, Connection, head
from rig.server import Program, Servers

pytestmark = pytest.mark.only_rwsgi(why="a property of our processes")

SLOT = 256 * 1024
MEGABYTE = 1 << 20
# Around what is worth a small slot, what one holds, what makes a body large, what one and all large slots hold, and what a
# request's place holds.
SIZES = [n + d for n in (1 << 12, 1 << 14, 1 << 16, SLOT, 2 * SLOT, MEGABYTE) for d in (-1, 0, 1)] + [3 * MEGABYTE + 7]

APPLICATION = """
import itertools, os, tempfile

def application(environ, start_response):
    way = environ["PATH_INFO"]
    body = b"" if way == "/fork" else environ["wsgi.input"].read()
    if way == "/fork":
        child = os.fork()
        if child == 0:
            try:
                left = environ["wsgi.input"].read()
                os._exit(1 if left else 0)
            except OSError:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        body = environ["wsgi.input"].read()
    if way == "/lines":
        body = b"".join(reversed(body.splitlines(True)))
    start_response("200 OK", [("Content-Length", str(len(body)))] if way != "/chunked" else [])
    if way == "/file":
        file = tempfile.TemporaryFile(dir=os.environ["FILES"])
        file.write(b"before" + body)
        file.flush()
        file.seek(6)
        # What was written just now is not passed as a descriptor.
        os.utime(file.fileno(), (1, 1))
        return environ["wsgi.file_wrapper"](file, 8192)
    if way == "/same-file":
        path = os.environ["FILES"] + "/same"
        with open(path, "wb") as file:
            file.write(body)
        return environ["wsgi.file_wrapper"](open(path, "rb"))
    if way == "/pieces":
        third = len(body) // 3
        return [body[:10], body[10:third], body[third:]]
    if way == "/parts":
        # Short ones and such as are worth a slot, among each other.
        parts, at = [], 0
        for size in itertools.cycle([100, 5_000, 3, 7, 4_096, 20_000]):
            if at >= len(body):
                return parts
            parts.append(body[at : at + size])
            at += size
    if way == "/chunked":
        return iter([body[:200_000], body[200_000:]])
    return [body]
"""
WAYS = ["/whole", "/pieces", "/parts", "/chunked", "/file"]


@pytest.fixture
def start(tmp_path):
    """Starts servers of the application that gives back what it gets."""
    (tmp_path / "application.py").write_text(APPLICATION)
    all_servers = []

    def start_one(program: Program, *options: object):
        servers = Servers(program, tmp_path)
        all_servers.append(servers)
        address = tcp()
        server = servers.start(
            "--http", address, "--wsgi-file", tmp_path / "application.py", "--master", "--disable-logging", *options,
            env={"FILES": str(tmp_path)},
        )
        server.wait_ready()
        return address, server

    yield start_one
    for servers in all_servers:
        servers.stop_all()


def content(size: int, seed: int) -> bytes:
    """Bytes that are nobody else's."""
    return random.Random(seed).randbytes(size)


def exchange(connection: Connection, way: str, size: int, seed: int) -> None:
    """A body there and back."""
    body = content(size, seed)
    answer = connection.request("POST", way, body=body)
    assert answer.status == 200, (way, size)
    assert hashlib.sha256(answer.body).digest() == hashlib.sha256(body).digest(), (way, size, len(answer.body))


def at_once(count: int, work: Callable[[int], None]) -> None:
    """Does the work in several threads; fails when one of them does."""
    failures: list[BaseException] = []

    def one(number: int) -> None:
        try:
            work(number)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def warm(address: str, count: int = 6) -> None:
    """Large bodies one after the other: a thread has its memory with the router when it has asked for it."""
    with Connection(address) as connection:
        for seed in range(count):
            exchange(connection, WAYS[seed % len(WAYS)], MEGABYTE, seed)


@pytest.mark.parametrize("threads", [1, 3])
def test_bodies_of_all_sizes_arrive_in_both_directions_with_several_clients_at_once(program, start, threads):
    address, _ = start(program, "--processes", 2, "--threads", threads)

    def client(number: int) -> None:
        order = [(size, way) for size in SIZES for way in WAYS]
        random.Random(number).shuffle(order)
        with Connection(address) as connection:
            for seed, (size, way) in enumerate(order):
                exchange(connection, way, size, 1000 * number + seed)

    at_once(6, client)


def test_lines_of_a_large_body_are_its_lines(program, start):
    address, _ = start(program, "--processes", 1)
    warm(address)
    lines = [b"%d " % n + content(n % 300, n).replace(b"\n", b"").replace(b"\r", b"") + b"\n" for n in range(4000)]
    with Connection(address) as connection:
        body = b"".join(lines)
        assert 1 << 16 < len(body) < MEGABYTE
        expected = b"".join(reversed(body.splitlines(True)))
        assert connection.request("POST", "/lines", body=body).body == expected


def test_a_child_that_the_application_forks_has_nothing_of_a_large_body(program, start):
    address, _ = start(program, "--processes", 1)
    warm(address)
    with Connection(address) as connection:
        for seed in range(3):
            exchange(connection, "/fork", MEGABYTE - seed, seed)
    warm(address)


@pytest.mark.parametrize("way", WAYS)
def test_slow_clients_hold_no_thread_and_get_all(program, start, way):
    address, _ = start(program, "--processes", 1, "--threads", 1)
    warm(address)
    with ExitStack() as stack:
        slow = []
        for seed in range(5):
            body = content(8 * MEGABYTE, seed)
            connection = stack.enter_context(Connection(address))
            connection.send(head("POST", way, None, body) + body)
            slow.append((connection, body))
        # The only thread serves others meanwhile.
        warm(address, 4)
        for connection, body in slow:
            assert connection.response().body == body


def test_a_file_that_is_written_anew_for_each_request_shows_a_slow_client_nothing_of_the_next(program, start):
    address, _ = start(program, "--processes", 1, "--threads", 1)
    warm(address)
    with Connection(address) as slow:
        body = content(8 * MEGABYTE, 1)
        slow.send(head("POST", "/same-file", None, body) + body)
        # The only thread does one after the other.
        with Connection(address) as connection:
            for seed in range(2, 5):
                exchange(connection, "/same-file", 8 * MEGABYTE, seed)
        assert slow.response().body == body


def test_clients_that_go_away_leave_nothing_behind_for_others(program, start):
    address, _ = start(program, "--processes", 1, "--threads", 2)
    warm(address)

    def client(number: int) -> None:
        for seed in range(30):
            way, size = WAYS[(number + seed) % len(WAYS)], SIZES[-1 - seed % 5]
            with Connection(address) as connection:
                body = content(size, 1000 * number + seed)
                if number % 2:
                    exchange(connection, way, size, seed)
                    continue
                everything = head("POST", way, None, body) + body
                connection.send(everything[: len(everything) // 2] if seed % 3 == 0 else everything)
                if seed % 3 == 2:
                    connection.read(100)
                connection.reset()

    at_once(4, client)
    warm(address)


def test_a_worker_that_is_killed_among_large_bodies_garbles_none(program, start, stats_at):
    address, server = start(program, "--processes", 2, "--threads", 2, "--stats", stats_at)
    server.wait_workers(2)
    stop = threading.Event()
    whole = []

    def client(number: int) -> None:
        seed = 0
        while not stop.is_set() or seed < 10:
            seed += 1
            way, size = WAYS[(number + seed) % len(WAYS)], SIZES[seed % len(SIZES)]
            body = content(size, 1000 * number + seed)
            try:
                with Connection(address) as connection:
                    answer = connection.request("POST", way, body=body)
            except Closed:
                continue
            if answer.status == 200:
                assert answer.body == body, (way, size)
                whole.append(size)
            else:
                assert answer.status == 502, answer.status

    def killer() -> None:
        try:
            for _ in range(4):
                worker = server.wait_workers(2)["workers"][0]
                served = len(whole)
                processes.kill(worker["pid"])
                server.wait_stats(
                    lambda document: document["workers"][0]["pid"] not in (0, worker["pid"]) and len(whole) > served,
                    "it is replaced",
                )
        finally:
            stop.set()

    at_once(5, lambda number: killer() if number == 4 else client(number))
    warm(address)


def test_a_reload_among_large_bodies_loses_none(program, start, stats_at):
    address, server = start(program, "--processes", 2, "--threads", 2, "--stats", stats_at)
    server.wait_workers(2)
    stop = threading.Event()

    def client(number: int) -> None:
        seed = 0
        with Connection(address) as connection:
            while not stop.is_set() or seed < 10:
                seed += 1
                exchange(connection, WAYS[(number + seed) % len(WAYS)], SIZES[seed % len(SIZES)], 1000 * number + seed)

    def reloader() -> None:
        try:
            for _ in range(3):
                before = {worker["pid"] for worker in server.wait_workers(2)["workers"]}
                server.send(signal.SIGHUP)
                server.wait_stats(
                    lambda document: all(w["accepting"] and w["pid"] not in before for w in document["workers"]),
                    "all are new",
                )
        finally:
            stop.set()

    at_once(5, lambda number: reloader() if number == 4 else client(number))


def test_files_for_more_slow_clients_than_there_are_descriptors_for(program, start, tmp_path):
    wrapper = tmp_path / "limited"
    wrapper.write_text(f'#!/bin/sh\nulimit -n 256\nexec "{program.path}" "$@"\n')
    wrapper.chmod(0o755)
    address, server = start(Program(str(wrapper)), "--processes", 1, "--threads", 2)
    warm(address)
    with ExitStack() as stack:
        slow = []
        for seed in range(50):
            body = content(600_000, seed)
            connection = stack.enter_context(Connection(address))
            connection.send(head("POST", "/file", None, body) + body)
            slow.append((connection, body))
        warm(address, 4)
        for connection, body in slow:
            assert connection.response().body == body
    assert not server.lines("is not sent")
