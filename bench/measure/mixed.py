"""A steady load of all kinds of requests, at a given rate, by clients that check every answer."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass

from rig.http import Closed, Connection, Response, head


@dataclass(frozen=True)
class Kind:
    """One kind of request: `share` of 10 are of it."""

    name: str
    share: int
    path: str
    # Bytes of body in the answer.
    size: int
    # Bytes of body in the request.
    upload: int = 0
    # Whether it goes on a connection that is kept.
    kept: bool = True


KINDS = [
    Kind("hello", 3, "/", 12),
    Kind("hello, a connection each", 2, "/", 12, kept=False),
    Kind("10 kB", 2, "/10kB", 10_000),
    Kind("upload of 100 kB", 1, "/upload", 6, upload=100_000),
    Kind("upload of 100 kB, a connection each", 1, "/upload", 6, upload=100_000, kept=False),
    Kind("chunks", 1, "/chunked", 1000),
]
_BODY = b"u" * max(kind.upload for kind in KINDS)
_CHOICES = [kind for kind in KINDS for _ in range(kind.share)]


class Steady:
    """`clients` clients that send `rate` requests a second together, until stopped. A client whose answer is late does
    not make up for what it could not send."""

    def __init__(self, address: str, rate: float, clients: int = 4) -> None:
        self.address, self.pause = address, clients / rate
        self.answered = 0
        # What went wrong, with how often.
        self.lost: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._client, args=(seed,), daemon=True) for seed in range(clients)]

    def start(self) -> Steady:
        """Starts the clients."""
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> None:
        """Lets every client finish its request, and waits for that."""
        self._stop.set()
        for thread in self._threads:
            thread.join(90)

    def _client(self, seed: int) -> None:
        choose = random.Random(seed)
        kept: Connection | None = None
        due = time.monotonic() + choose.random() * self.pause
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due = max(due + self.pause, time.monotonic())
            kind = choose.choice(_CHOICES)
            try:
                if kind.kept:
                    answer, kept = self._on_kept(kept, kind)
                else:
                    with Connection(self.address) as once:
                        answer = _exchange(once, kind, {"Connection": "close"})
                wrong = "" if (answer.status, len(answer.body)) == (200, kind.size) else f"{answer.status}"
            except (OSError, AssertionError) as failure:
                kept = None if kind.kept else kept
                wrong = type(failure).__name__
            with self._lock:
                if wrong:
                    self.lost[f"{kind.name}: {wrong}"] += 1
                else:
                    self.answered += 1
        if kept is not None:
            kept.close()

    def _on_kept(self, kept: Connection | None, kind: Kind) -> tuple[Response, Connection | None]:
        """A kept connection that was closed before any byte of an answer came is no loss: the request goes once more, on
        a new one, as every client does it."""
        if kept is not None:
            before = kept.received
            try:
                return _keep(kept, _exchange(kept, kind))
            except (Closed, ConnectionError):
                kept.close()
                if kept.received != before:
                    raise
        fresh = Connection(self.address)
        try:
            return _keep(fresh, _exchange(fresh, kind))
        except BaseException:
            fresh.close()
            raise


def _exchange(connection: Connection, kind: Kind, headers: dict[str, str] | None = None) -> Response:
    body = _BODY[: kind.upload] if kind.upload else None
    method = "GET" if body is None else "POST"
    connection.send(head(method, kind.path, headers, body) + (body or b""))
    return connection.response(method)


def _keep(connection: Connection, answer: Response) -> tuple[Response, Connection | None]:
    if (
        (answer.header("Connection") or "").lower() == "close"
        or answer.framing == "close"
        or answer.version == "HTTP/1.0"
    ):
        connection.close()
        return answer, None
    return answer, connection
