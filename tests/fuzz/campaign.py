"""A run of many cases, in the order of their numbers, with innocent requests at the same time."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator

from rig import uwsgi
from rig.http import Closed, Connection, Response, head

from . import oracle, reading, state
from .application import saw
from .site import DEADLINE, Listener, Outcome, Site
from .mutate import Case, case

# Cases between two looks at what the application saw.
BATCH = 400
# Cases between two looks at the server's memory, at most.
LOOK_EVERY = 20_000
# Clients at once.
CLIENTS = 8


@dataclass
class Report:
    """What a campaign found."""

    cases: Counter[str] = field(default_factory=Counter)
    served: int = 0
    refused: int = 0
    # Answers that were files, and the most that others may have been whose clients did not read them.
    files: int = 0
    files_unread: int = 0
    innocent: int = 0
    # The longest that an innocent request took, seconds.
    slowest: float = 0.0
    faults: list[str] = field(default_factory=list)
    # The server after so many cases, when nothing was open; the first look is when it is warm.
    looks: list[tuple[int, state.State]] = field(default_factory=list)


class Campaign:
    """Runs the cases of a seed at some of a site's sockets."""

    def __init__(self, site: Site, seed: int, kinds: tuple[str, ...], keep: Path) -> None:
        self.site, self.seed, self.keep = site, seed, keep
        self.listeners = {
            protocol: listeners
            for protocol in ("http", "uwsgi")
            if (listeners := [site.listeners[kind] for kind in kinds if site.listeners[kind].protocol == protocol])
        }
        self.report = Report()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        # What the application may see, of this batch and of those before it whose requests may still be under way.
        self._may: list[Counter[str]] = [Counter()]
        self._seen = 0

    def run(self, first: int, count: int, seconds: float | None = None) -> Report:
        """Runs `count` cases, for at most so many seconds, or until one is at fault."""
        end = None if seconds is None else time.monotonic() + seconds
        every = max(BATCH, min(count // 8, LOOK_EVERY))
        for start in range(0, count, BATCH):
            self._batch(range(first, first + count)[start : start + BATCH])
            if self.report.faults or self._stop.is_set() or (end is not None and time.monotonic() > end):
                break
            if start // every > (start - BATCH) // every or not self.report.looks:
                self.report.looks.append((min(start + BATCH, count), state.quiet(self.site)))
        self._finish()
        return self.report

    def stop(self) -> None:
        """Ends it early, after the batch that is under way."""
        self._stop.set()

    def _finish(self) -> None:
        if not self.report.looks or self.report.faults:
            return
        before = self.report.looks[0][1]
        after = state.settled(self.site, before)
        self.report.looks.append((sum(self.report.cases.values()) // len(self.report.cases), after))
        self._look()
        self.report.faults += state.faults(
            self.site, before, after, self._seen + self.report.files, self.report.files_unread
        )

    # --- Cases

    def _batch(self, numbers: range) -> None:
        waiting = iter(numbers)
        stop = threading.Event()
        innocents = [
            threading.Thread(target=self._innocent, args=(listener, numbers.start, stop))
            for listeners in self.listeners.values()
            for listener in listeners
        ]
        clients = [threading.Thread(target=self._client, args=(waiting,)) for _ in range(CLIENTS)]
        for thread in innocents + clients:
            thread.start()
        for thread in clients:
            thread.join()
        stop.set()
        for thread in innocents:
            thread.join()
        self._look()

    def _client(self, numbers: Iterator[int]) -> None:
        while True:
            with self._lock:
                number = next(numbers, None)
            if number is None or self.report.faults:
                return
            for protocol, listeners in self.listeners.items():
                self._case(case(self.seed, number, protocol), listeners)

    def _case(self, case: Case, listeners: list[Listener]) -> None:
        meaning = (reading.http if case.protocol == "http" else reading.uwsgi)(case.stream)
        outcomes = {}
        for listener in listeners:
            with self._lock:
                self._may[-1].update(request.saw for request in meaning.requests)
            try:
                outcome = outcomes[listener.kind] = listener.exchange(case, meaning)
            except OSError as failure:
                self._fault(case, listener.kind, meaning, f"no connection: {failure}", None)
                return
            wrong = oracle.fault(case, listener.kind, meaning, outcome)
            if wrong:
                self._fault(case, listener.kind, meaning, wrong, outcome)
            with self._lock:
                self.report.cases[listener.kind] += 1
                self._count_files(case, meaning, outcome)
                self.report.served += sum(answer.status < 400 for answer in outcome.answers)
                self.report.refused += sum(answer.status >= 400 for answer in outcome.answers)
        wrong = oracle.disagreement(case, meaning, outcomes)
        if wrong:
            self._fault(case, "http and http-socket", meaning, wrong, None)

    def _count_files(self, case: Case, meaning: reading.Reading, outcome: Outcome) -> None:
        asked = sum(request.may_be_file for request in meaning.requests)
        answered = sum(oracle.is_file(answer) for answer in outcome.answers)
        self.report.files += answered
        if case.is_abandoned or len(outcome.answers) < len(meaning.requests):
            self.report.files_unread += asked - answered

    def _fault(self, case: Case, kind: str, meaning: reading.Reading, wrong: str, outcome: Outcome | None) -> None:
        path = self.keep / f"{case.seed}-{case.number}-{case.protocol}"
        path.write_bytes(case.stream)
        text = (
            f"--seed {case.seed} --case {case.number} at {kind}: {wrong}\n"
            f"  sent ({path}): {case.stream[:2000]!r}\n"
            f"  cut at {case.cuts}, ending {case.ending}\n"
            f"  which means: {meaning}\n"
            f"  came back: {outcome and (outcome.end, outcome.brief(), outcome.rest[:500])}"
        )
        with self._lock:
            self.report.faults.append(text)

    # --- Innocent requests

    def _innocent(self, listener: Listener, number: int, stop: threading.Event) -> None:
        """Asks on connections of its own until told to stop, and knows each answer before it comes."""
        rng = random.Random(f"{self.seed}/{number}/{listener.kind}")
        connection: Connection | None = None
        n = 0
        while not stop.is_set() and not self.report.faults:
            n += 1
            target, body = f"/innocent/{listener.kind}/{number}/{n}", rng.randbytes(rng.randint(0, 3000))
            headers = {"X-Who": f"{listener.kind}-{number}-{n}", "X-Padding": "p" * rng.randint(0, 200)}
            expected = saw("POST", target, _seen_headers(headers, listener.protocol), body)
            with self._lock:
                self._may[-1][expected] += 1
            begun = time.monotonic()
            try:
                if listener.protocol == "uwsgi":
                    answer = uwsgi.request(listener.address, "POST", target, headers, body)
                else:
                    connection = connection or Connection(listener.address, DEADLINE)
                    connection.send(head("POST", target, headers, body) + body)
                    answer = connection.response("POST")
            except (OSError, Closed, AssertionError) as failure:
                self._innocent_fault(listener, target, f"{type(failure).__name__}: {failure}")
                return
            self._innocent_answer(listener, target, answer, expected, time.monotonic() - begun)
            stop.wait(0.002)
        if connection is not None:
            connection.close()

    def _innocent_answer(self, listener: Listener, target: str, answer: Response, expected: str, took: float) -> None:
        if (answer.status, answer.text) != (200, expected):
            self._innocent_fault(listener, target, f"{answer.status} {answer.text[:500]!r} instead of {expected}")
        with self._lock:
            self.report.innocent += 1
            self.report.slowest = max(self.report.slowest, took)

    def _innocent_fault(self, listener: Listener, target: str, wrong: str) -> None:
        with self._lock:
            self.report.faults.append(f"--seed {self.seed}: the innocent {target} at {listener.kind}: {wrong}")

    # --- What the application saw

    def _look(self) -> None:
        """Every request that the application saw is one that somebody sent."""
        for line in self.site.seen():
            self._seen += 1
            for may in self._may:
                if may[line] > 0:
                    may[line] -= 1
                    break
            else:
                with self._lock:
                    self.report.faults.append(f"--seed {self.seed}: the application saw what nobody sent: {line}")
        # An abandoned request may still be under way when its batch is over.
        self._may = [*self._may[-2:], Counter()]


def _seen_headers(headers: dict[str, str], protocol: str) -> list[tuple[str, str]]:
    named = [(f"HTTP_{name.upper().replace('-', '_')}", value) for name, value in headers.items()]
    return [*named, ("HTTP_HOST", "localhost"), *([("CONTENT_TYPE", "")] if protocol == "uwsgi" else [])]
