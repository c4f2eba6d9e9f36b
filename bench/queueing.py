#!/usr/bin/env python3
"""How long fast pages wait beside slow ones: one queue for all threads, or a queue for each worker. A simulation of what
bench/run measures as `mixed`: so many connections ask for a fast page, a few for a slow one, each again as soon as it is
answered. Prints percentiles of the fast pages' times."""

from __future__ import annotations

import argparse
import heapq
import random
from collections import deque


class Server:
    """Workers of some threads. With `pinned` a connection belongs to one worker; with `watched` the same, but what waits
    longer than a moment for a worker whose threads are all in slow requests goes to a free one and stays there."""

    def __init__(self, options: argparse.Namespace, kind: str, seed: int) -> None:
        self.options, self.kind = options, kind
        self.choose = random.Random(seed)
        count = 1 if kind == "shared" else options.processes
        self.free = [options.threads * options.processes // count] * count
        self.waiting: list[deque[tuple[float, int]]] = [deque() for _ in range(count)]
        # When each worker's threads are all in requests that go on, and the one that ends first.
        self.ends: list[list[float]] = [[] for _ in range(count)]
        self.clients = options.fast + options.slow
        self.home = [self.choose.randrange(count) for _ in range(self.clients)]
        self.times: list[float] = []
        self.events: list[tuple[float, int, str, int, int]] = []
        # Workers that are looked at soon.
        self.looks: set[int] = set()
        self.number = 0

    def at(self, time: float, what: str, client: int, worker: int) -> None:
        self.number += 1
        heapq.heappush(self.events, (time, self.number, what, client, worker))

    def length(self, client: int) -> float:
        mean = self.options.fast_ms if client < self.options.fast else self.options.slow_ms
        # A page takes about as long each time.
        return mean * self.choose.uniform(0.8, 1.2)

    def begin(self, now: float, worker: int) -> None:
        while self.free[worker] and self.waiting[worker]:
            came, client = self.waiting[worker].popleft()
            self.free[worker] -= 1
            end = now + self.length(client)
            heapq.heappush(self.ends[worker], end)
            self.at(end, "done", client, worker)
            if client < self.options.fast and now > self.options.warm_ms:
                self.times.append(end - came)

    def look_soon(self, now: float, worker: int) -> None:
        if self.kind == "watched" and self.waiting[worker] and worker not in self.looks:
            self.looks.add(worker)
            self.at(now + self.options.look_ms, "look", -1, worker)

    def look(self, now: float, worker: int) -> None:
        """A worker that is stuck gives what waits to others."""
        if not self.is_stuck(now, worker):
            return
        others = [other for other in range(len(self.free)) if not self.is_stuck(now, other)]
        while others and self.waiting[worker]:
            came, client = self.waiting[worker].popleft()
            other = self.choose.choice(others)
            self.home[client] = other
            self.waiting[other].append((came, client))
            self.begin(now, other)

    def is_stuck(self, now: float, worker: int) -> bool:
        return not self.free[worker] and self.ends[worker][0] > now + self.options.look_ms

    def run(self) -> list[float]:
        """The times of the fast pages, ms."""
        for client in range(self.clients):
            self.at(self.choose.random(), "asks", client, -1)
        while self.events and self.events[0][0] < self.options.length_ms:
            now, _, what, client, worker = heapq.heappop(self.events)
            if what == "done":
                self.free[worker] += 1
                heapq.heappop(self.ends[worker])
                self.at(now + self.options.think_ms, "asks", client, -1)
                self.begin(now, worker)
            elif what == "asks":
                worker = self.home[client]
                self.waiting[worker].append((now, client))
                self.begin(now, worker)
                self.look_soon(now, worker)
            else:
                self.looks.remove(worker)
                self.look(now, worker)
                self.look_soon(now, worker)
        return sorted(self.times)


def main() -> None:
    """Prints a line for each kind of queue."""
    arguments = argparse.ArgumentParser(description=__doc__)
    for name, value in {"processes": 2, "threads": 2, "fast": 61, "slow": 3, "seeds": 5}.items():
        arguments.add_argument(f"--{name}", type=int, default=value)
    for name, value in {
        "fast-ms": 0.05, "slow-ms": 200.0, "think-ms": 0.05, "look-ms": 5.0, "warm-ms": 500.0, "length-ms": 4000.0,
    }.items():  # fmt: skip
        arguments.add_argument(f"--{name}", type=float, default=value)
    options = arguments.parse_args()
    kinds = {"pinned": "a queue for each worker", "watched": "the same, handed over", "shared": "one queue"}
    for kind, name in kinds.items():
        runs = [Server(options, kind, seed).run() for seed in range(options.seeds)]
        worst = [[run[min(len(run) - 1, int(len(run) * part))] for run in runs] for part in (0.5, 0.99, 0.999)]
        shown = "  ".join(
            f"{label} {min(values):.2f} to {max(values):.2f} ms" for label, values in zip(("p50", "p99", "p99.9"), worst)
        )
        print(f"{name:28} {shown}")


if __name__ == "__main__":
    main()
