"""The server under test, with a socket of every kind, and one connection to it."""

from __future__ import annotations

import os
import select
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path

from rig.addresses import connect, tcp
from rig.http import BadAnswer, Closed, Connection, Response
from rig.server import Server, Servers

from .mutate import Case
from .reading import BUFFER_SIZE, FILES, LIMIT_POST, Reading

KINDS = ("http", "http-socket", "socket")
# The longest that anything may take, seconds: it is far more than it takes on a busy machine, and the servers' own
# patience (socket-timeout, http-keepalive) is longer, so that a hang is never mended by it.
DEADLINE = 20.0
PATIENCE = 120
WORKERS = 2
# Of each worker.
THREADS = 2
# What is in the file that is served.
FILE = bytes(range(256)) * 20


@dataclass
class Outcome:
    """What a client saw of its connection."""

    answers: list[Response] = field(default_factory=list)
    # "closed", "reset", "left" (by the client), "hang", or what was wrong with the answers.
    end: str = "closed"
    # What came behind the last whole answer.
    rest: bytes = b""

    def brief(self) -> list[tuple[int, str]]:
        """What two sockets must agree on."""
        return [(answer.status, answer.header("X-Saw") or answer.text[:200]) for answer in self.answers]


class _Received(Connection):
    """Reads answers from bytes that are there already."""

    def __init__(self, data: bytes) -> None:
        # Not the base's: that connects.
        self._buffer, self._taken, self.received = data, 0, len(data)

    def _more(self) -> bool:
        return False

    @property
    def left(self) -> bytes:
        """What was not read yet."""
        return self._buffer


def answers(data: bytes, are_heads: list[bool]) -> tuple[list[Response], bytes, str]:
    """Whole answers, what follows them, and what is wrong with that. `are_heads`: which requests are HEADs."""
    reader, found = _Received(data), []
    while reader.left:
        before = reader.left
        is_head = len(found) < len(are_heads) and are_heads[len(found)]
        try:
            found.append(reader.response("HEAD" if is_head else "GET"))
        except Closed:
            return found, before, ""
        except BadAnswer as failure:
            return found, before, str(failure)
    return found, b"", ""


class Listener:
    """One of the server's sockets."""

    def __init__(self, kind: str, address: str) -> None:
        self.kind, self.address = kind, address
        self.protocol = "uwsgi" if kind == "socket" else "http"

    def exchange(self, case: Case, reading: Reading) -> Outcome:
        """Sends what the case sends, and returns what came back."""
        with connect(self.address, DEADLINE) as connection:
            connection.setblocking(False)
            return _Exchange(connection, case, reading).run()


class _Exchange:
    """A connection on its way: it reads whenever there is something, so that neither side waits for the other."""

    def __init__(self, connection: socket.socket, case: Case, reading: Reading) -> None:
        self.connection, self.case, self.reading = connection, case, reading
        self.received = bytearray()
        self.deadline = time.monotonic() + DEADLINE
        self.ended = ""

    def run(self) -> Outcome:
        for piece, pause in self.case.pieces():
            self._send(piece)
            if pause and not self.ended:
                time.sleep(pause)
        if self.case.ending == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        if self.case.is_abandoned:
            return Outcome(end="left")
        if self.case.ending == "wait":
            while not self.ended and len(answers(bytes(self.received), self.reading.are_heads)[0]) < self.reading.due:
                self._wait(select.POLLIN)
        if not self.ended:
            try:
                self.connection.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it was reset in the meantime
        while not self.ended:
            self._wait(select.POLLIN)
        found, rest, fault = answers(bytes(self.received), self.reading.are_heads)
        return Outcome(found, f"bad answer: {fault}" if fault else self.ended, rest)

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view and not self.ended:
            if not self._wait(select.POLLIN | select.POLLOUT) & select.POLLOUT:
                continue
            try:
                view = view[self.connection.send(view) :]
            except BlockingIOError:
                continue
            except OSError:
                # What was answered before may be there to read.
                while not self.ended:
                    self._wait(select.POLLIN)

    def _wait(self, events: int) -> int:
        """Waits until something can be done, reads what there is, and returns what is possible."""
        poll = select.poll()
        poll.register(self.connection, events)
        left = self.deadline - time.monotonic()
        ready = poll.poll(max(0.0, left) * 1000)
        if not ready:
            self.ended = "hang"
            return 0
        happened = ready[0][1]
        if happened & ~select.POLLOUT:
            try:
                data = self.connection.recv(262144)
                self.received += data
                self.ended = "" if data else "closed"
            except BlockingIOError:
                pass
            except OSError:
                self.ended = "reset"
        return happened


class Site:
    """The server, its sockets, and the file in which the application writes what it saw."""

    def __init__(self, serve: Servers, directory: Path) -> None:
        self.record = directory / "seen"
        self.record.touch()
        self._read = 0
        files = directory / "files"
        files.mkdir()
        (files / "file").write_bytes(FILE)
        addresses = {kind: tcp() for kind in KINDS}
        sockets = [part for kind, address in addresses.items() for part in (f"--{kind}", address)]
        self.server: Server = serve(
            "--master", *sockets, "--wsgi-file", Path(__file__).with_name("application.py"), "--stats", tcp(),
            "--static-map", f"{FILES}={files}",
            "--processes", WORKERS, "--threads", THREADS, "--buffer-size", BUFFER_SIZE, "--limit-post", LIMIT_POST,
            "--post-buffering", 20_000, "--socket-timeout", PATIENCE, "--http-timeout", PATIENCE,
            f"--http-keepalive={PATIENCE}", "--disable-logging",
            env={"FUZZ_RECORD": str(self.record)},
        )  # fmt: skip
        self.listeners = {kind: Listener(kind, address) for kind, address in addresses.items()}

    def seen(self) -> list[str]:
        """What the application wrote since the last time."""
        with self.record.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        if self._read > 64_000_000:
            # Hours of it must not fill the disk. Between two cases nobody writes; see the caller.
            os.truncate(self.record, 0)
            self._read = 0
        return whole.decode().splitlines()
