"""A bounded load of parallel clients that know exactly what they sent, got and lost."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Callable

from rig import uwsgi
from rig.http import Closed, Connection, Response, head
from rig.waiting import until


class Load:
    """Clients that repeat one request in the background, until stopped or `total` requests were sent.

    `keep_alive` clients reuse their connections, and do what every client does that reuses one: a request that finds
    its old connection closed before any byte of an answer came is sent once more on a new one.
    """

    def __init__(
        self,
        address: str,
        target: str = "/",
        clients: int = 8,
        total: int | None = None,
        keep_alive: bool = False,
        protocol: str = "http",
        expect: Callable[[Response], bool] = lambda answer: answer.status == 200,
    ) -> None:
        self.address, self.target, self.keep_alive, self.protocol = address, target, keep_alive, protocol
        self.expect = expect
        self.sent = 0
        self.bytes = 0
        self.statuses: Counter[int] = Counter()
        # What went wrong, with how often.
        self.lost: Counter[str] = Counter()
        self._left = total
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._client, daemon=True) for _ in range(clients)]

    @property
    def good(self) -> int:
        """Requests that were answered as expected."""
        return sum(self.statuses.values())

    def start(self) -> Load:
        """Starts the clients."""
        for thread in self._threads:
            thread.start()
        return self

    __enter__ = start

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> Load:
        """Lets every client finish its request, and waits for that."""
        self._stop.set()
        return self.join()

    def join(self) -> Load:
        """Waits until every client is done."""
        for thread in self._threads:
            thread.join(120)
            assert not thread.is_alive(), f"a client hangs; {self.good} answered, lost {self.lost}"
        return self

    def wait_good(self, more: int, clients_lost: str = "") -> None:
        """Waits until `more` further requests were answered as expected."""
        goal = self.good + more
        until(lambda: self.good >= goal, f"{more} more answers {clients_lost}", context=lambda: f"lost {self.lost}")

    def _next(self) -> bool:
        with self._lock:
            if self._stop.is_set() or self._left == 0:
                return False
            if self._left is not None:
                self._left -= 1
            self.sent += 1
            return True

    def _client(self) -> None:
        connection: Connection | None = None
        while self._next():
            try:
                answer, connection = self._exchange(connection)
                with self._lock:
                    self.bytes += answer.size
                    if self.expect(answer):
                        self.statuses[answer.status] += 1
                    else:
                        self.lost[f"{answer.status} {answer.text[:200]}"] += 1
            except (OSError, AssertionError) as failure:
                connection = None
                with self._lock:
                    self.lost[f"{type(failure).__name__}: {failure}"] += 1
        if connection is not None:
            connection.close()

    def _exchange(self, connection: Connection | None) -> tuple[Response, Connection | None]:
        if self.protocol == "uwsgi":
            return uwsgi.get(self.address, self.target), None
        if not self.keep_alive:
            with Connection(self.address) as once:
                return once.request("GET", self.target, {"Connection": "close"}), None
        if connection is not None:
            before = connection.received
            try:
                return self._reusable(connection)
            except (Closed, ConnectionError):
                connection.close()
                if connection.received != before:
                    raise
        return self._reusable(Connection(self.address))

    def _reusable(self, connection: Connection) -> tuple[Response, Connection | None]:
        connection.send(head("GET", self.target))
        answer = connection.response()
        if (answer.header("Connection") or "").lower() == "close" or answer.framing == "close":
            connection.close()
            return answer, None
        return answer, connection
