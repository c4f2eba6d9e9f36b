"""The load of a chaos run: clients of every kind, each of whose requests has a number of its own and a known answer."""

from __future__ import annotations

import enum
import hashlib
import itertools
import random
import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

from rig import uwsgi
from rig.addresses import connect
from rig.http import Closed, Connection, Response, head
from rig.waiting import until

# Longer than anything that happens to a server keeps a request waiting.
PATIENCE = 45.0


@dataclass(frozen=True)
class Kind:
    """One kind of request: `share` of all shares are of it. Sizes in bytes, the largest."""

    name: str
    share: int
    path: str
    upload: int = 0
    download: int = 0
    chunked: bool = False
    slow: bool = False
    kept: bool = True

    @property
    def uses_disk(self) -> bool:
        """Whether the server may need a file for it."""
        return self.upload > 0 or self.slow or self.path == "/job"


KINDS = [
    Kind("hello", 4, "/hello"),
    Kind("hello, a connection each", 4, "/hello", kept=False),
    Kind("upload", 2, "/upload", upload=150_000),
    Kind("upload, a connection each", 1, "/upload", upload=150_000, kept=False),
    Kind("chunked upload", 1, "/upload", upload=100_000, chunked=True),
    Kind("download", 2, "/download", download=60_000),
    Kind("slow download", 1, "/download", download=300_000, slow=True, kept=False),
    Kind("stream", 1, "/stream", download=40_000),
    Kind("slow stream", 1, "/stream", download=200_000, slow=True, kept=False),
    Kind("job", 1, "/job"),
    Kind("message to a mule", 1, "/mule"),
]


class Outcome(enum.Enum):
    """What became of a request, as its client saw it."""

    RIGHT = "right"
    WRONG = "a wrong answer"
    # A whole answer that says that the server cannot.
    REFUSED = "refused"
    # The connection ended before the answer did.
    LOST = "lost"
    # Nothing came, however long the client waited.
    HUNG = "hung"
    # The client itself went away.
    LEFT = "left"


@dataclass
class Attempt:
    """One request that was sent once. Times are of the monotonic clock, in seconds."""

    number: str
    kind: str
    uses_disk: bool
    begun: float
    # Since when its connection, where it was kept, had been idle; else `begun`.
    idle_since: float
    reused: bool = False
    # Whether not a byte of an answer came.
    silent: bool = False
    ended: float = float("inf")
    outcome: Outcome = Outcome.HUNG
    status: int = 0
    why: str = ""

    def __str__(self) -> str:
        kept = f", on a connection idle since {self.idle_since:.3f}" if self.reused else ""
        silent = ", no byte came" if self.silent else ""
        when = f"{self.begun:.3f}–{self.ended:.3f}"
        what = f"{self.outcome.value}{silent}: {self.status or ''} {self.why}"
        return f"{self.number} ({self.kind}{kept}) {when} {what}"


class Reader(Connection):
    """A connection that reads slowly, in small pieces, and knows since when it is idle."""

    def __init__(self, address: str, slow: bool) -> None:
        super().__init__(address, PATIENCE)
        self.slow, self.idle_since = slow, time.monotonic()
        if slow:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)

    def _more(self) -> bool:
        if self.slow:
            time.sleep(0.001)
        return super()._more()


@dataclass
class Seen:
    """What clients saw: how many were right, and every request of which that is not so."""

    right: int = 0
    others: list[Attempt] = field(default_factory=list)


class Load:
    """Clients in the background, until stopped."""

    _runs = itertools.count(1)

    def __init__(self, address: str, socket_kind: str, seed: int, clients: int = 8, pause: float = 0.02) -> None:
        self.address, self.socket_kind, self.pause = address, socket_kind, pause
        self.kinds = [kind for kind in KINDS if not (socket_kind == "socket" and (kind.chunked or not kind.kept))]
        self.seen = Seen()
        self.by_kind: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        run = next(self._runs)
        self._threads = [
            threading.Thread(
                target=self._client, args=(f"{run}-{number}", random.Random(seed * 1000 + number)), daemon=True
            )
            for number in range(clients)
        ]

    def start(self) -> Load:
        """Starts the clients."""
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> Seen:
        """Lets every client finish its request and close its connection; gives what they saw."""
        self._stop.set()
        for thread in self._threads:
            thread.join(3 * PATIENCE)
            assert not thread.is_alive(), "a client hangs"
        return self.seen

    def abandon(self) -> None:
        """Ends the clients without waiting for what they wait for."""
        self._stop.set()

    def wait_right(self, more: int, what: str) -> None:
        """Waits until `more` further requests were answered as they should be."""
        goal = self.seen.right + more
        until(lambda: self.seen.right >= goal, f"{more} right answers {what}", 60, lambda: self.told())

    def linger(self, more: int, most: float) -> None:
        """Waits for `more` right answers, but for no longer than `most` seconds: for what may hold the clients up."""
        goal = self.seen.right + more
        with suppress(AssertionError):
            until(lambda: self.seen.right >= goal, f"{more} right answers", most)

    def told(self) -> str:
        """What was not right, the last of it."""
        return "\n".join(str(attempt) for attempt in self.seen.others[-20:])

    def _client(self, name: str, choose: random.Random) -> None:
        kept: Reader | None = None
        shares = [kind.share for kind in self.kinds]
        for number in itertools.count(1):
            if self._stop.wait(self.pause * 2 * choose.random()):
                break
            kind = choose.choices(self.kinds, shares)[0]
            body = choose.randbytes(choose.randint(0, kind.upload)) if kind.upload else None
            size = choose.randint(0, kind.download)
            attempt, kept = self._attempt(f"{name}-{number}", kind, body, size, kept)
            # What finds a kept connection closed goes once more, on a new one, under another number: it may have begun.
            if attempt.outcome is Outcome.LOST and attempt.reused and attempt.silent:
                _, kept = self._attempt(f"{name}-{number}-again", kind, body, size, None)
        if kept is not None:
            kept.close()

    def _attempt(
        self, number: str, kind: Kind, body: bytes | None, size: int, kept: Reader | None
    ) -> tuple[Attempt, Reader | None]:
        now = time.monotonic()
        reused = kind.kept and kept is not None
        attempt = Attempt(number, kind.name, kind.uses_disk, now, kept.idle_since if reused and kept else now, reused)
        connection: Reader | None = None
        before = 0
        try:
            connection = kept if reused and kept else Reader(self.address, kind.slow)
            before = connection.received
            answer = self._exchange(connection, number, kind, body, size)
            attempt.status = answer.status
            attempt.outcome, attempt.why = judge(answer, number, kind, body, size)
        except (TimeoutError, socket.timeout):
            attempt.outcome, attempt.why = Outcome.HUNG, f"nothing for {PATIENCE:g} s"
        except (OSError, Closed) as failure:
            attempt.outcome, attempt.why = Outcome.LOST, f"{type(failure).__name__}: {failure}"
        except AssertionError as failure:
            attempt.outcome, attempt.why = Outcome.WRONG, f"{type(failure).__name__}: {failure}"
        attempt.ended = time.monotonic()
        attempt.silent = connection is None or connection.received == before
        with self._lock:
            if attempt.outcome is Outcome.RIGHT:
                self.seen.right += 1
                self.by_kind[kind.name] += 1
            else:
                self.seen.others.append(attempt)
        good = attempt.outcome is Outcome.RIGHT and self.socket_kind != "socket"
        if good and kind.kept and connection is not None and (answer.header("Connection") or "").lower() != "close":
            connection.idle_since = attempt.ended
            return attempt, connection
        if connection is not None:
            connection.close()
        return attempt, kept if connection is not kept else None

    def _exchange(self, connection: Reader, number: str, kind: Kind, body: bytes | None, size: int) -> Response:
        method, target = "GET" if body is None else "POST", kind.path + (f"?{size}" if kind.download else "")
        headers = {"X-Id": number}
        if self.socket_kind == "socket":
            data = uwsgi.packet(uwsgi.variables(method, target, headers, body)) + (body or b"")
        else:
            if not kind.kept:
                headers["Connection"] = "close"
            if kind.chunked and body is not None:
                headers["Transfer-Encoding"] = "chunked"
                data = head(method, target, headers) + in_chunks(body)
            else:
                data = head(method, target, headers, body) + (body or b"")
        try:
            connection.send(data)
        except (BrokenPipeError, ConnectionResetError):
            # Who refuses a body may close before it is sent: the answer, if there is one, is already here.
            pass
        return connection.response(method)


def in_chunks(body: bytes) -> bytes:
    """A body in chunks of 7 kB."""
    pieces = [body[start : start + 7000] for start in range(0, len(body), 7000)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def pattern(number: str, size: int) -> bytes:
    """The bytes of a download, as `app.py` makes them."""
    word = hashlib.sha256(number.encode()).digest()
    return (word * (size // len(word) + 1))[:size]


def judge(answer: Response, number: str, kind: Kind, body: bytes | None, size: int) -> tuple[Outcome, str]:
    """Whether an answer is the one to this very request."""
    if answer.status >= 500:
        return Outcome.REFUSED, answer.text[:200]
    if kind.upload:
        expected = f"{number} {len(body or b'')} {hashlib.sha256(body or b'').hexdigest()}".encode()
    elif kind.download:
        expected = pattern(number, size)
    else:
        expected = f"{number}\n".encode()
    if (answer.status, answer.header("X-Id"), answer.body) == (200, number, expected):
        return Outcome.RIGHT, ""
    return (
        Outcome.WRONG,
        f"id {answer.header('X-Id')}, {len(answer.body)} bytes of {len(expected)}: {answer.body[:60]!r}",
    )


def ask(address: str, socket_kind: str, number: str, target: str) -> Attempt:
    """One request outside the load, for what it does to the server: whatever comes of it is told."""
    attempt = Attempt(number, target, False, time.monotonic(), time.monotonic())
    try:
        connection = Connection(address, PATIENCE)
        try:
            headers = {"X-Id": number}
            if socket_kind == "socket":
                connection.send(uwsgi.packet(uwsgi.variables("GET", target, headers)))
            else:
                connection.send(head("GET", target, {"Connection": "close", **headers}))
            attempt.status = connection.response().status
            attempt.outcome = Outcome.RIGHT if attempt.status == 200 else Outcome.REFUSED
        finally:
            connection.close()
    except (TimeoutError, socket.timeout):
        attempt.outcome = Outcome.HUNG
    except (OSError, Closed) as failure:
        attempt.outcome, attempt.why = Outcome.LOST, str(failure)
    attempt.ended = time.monotonic()
    return attempt


def leave(address: str, data: bytes) -> None:
    """Sends bytes and resets the connection."""
    connection = connect(address, PATIENCE)
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        connection.sendall(data)
    except OSError:
        pass
    finally:
        connection.close()
