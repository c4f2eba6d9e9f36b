"""The state of the server: what must not grow or change in its processes, and whether its counts are right."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rig import stats
from rig.waiting import until

from .site import THREADS, WORKERS, Site

# Bytes that a process may grow by between two looks, of which the first is after its warm-up.
GROWTH = 8_000_000
# What the http router keeps open for files on their way, from the first large body on: copies of its epoll set.
SPARE = "anon_inode:[eventpoll]"
_LOST = re.compile(r"panicked|Traceback|signal|respawn", re.IGNORECASE)


@dataclass(frozen=True)
class State:
    """The server at one moment."""

    # By process id: its name, its own memory in bytes, how many descriptors it has but for spare ones.
    names: dict[int, str]
    memory: dict[int, int]
    descriptors: dict[int, int]

    def __str__(self) -> str:
        parts = [
            f"{self.names[pid]} {self.memory[pid] / 1e6:.1f} MB {self.descriptors[pid]} fds"
            for pid in sorted(self.names)
        ]
        return ", ".join(parts)


def _own_memory(pid: int) -> int:
    """Memory that is the process's own, bytes: what is shared would be counted for each of them."""
    total = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(("Private_Clean:", "Private_Dirty:", "Swap:")):
            total += int(line.split()[1]) * 1024
    return total


def look(site: Site) -> State:
    """What is there now. No connection may be open."""
    found = {process.pid: process for process in site.server.processes()}
    return State(
        {pid: process.name for pid, process in found.items()},
        {pid: _own_memory(pid) for pid in found},
        {pid: sum(file != SPARE for file in process.open_files()) for pid, process in found.items()},
    )


def quiet(site: Site) -> State:
    """The state when connections that were closed a moment ago are gone."""
    last = [look(site)]

    def is_same() -> bool:
        last.append(look(site))
        return last[-1].descriptors == last[-2].descriptors

    until(is_same, "descriptors that stay as they are")
    return last[-1]


def _lanes(name: str) -> int:
    """How many connections for large bodies a process may have: one of each thread with the http router, from the first body on
    that the thread has had."""
    if name == "rwsgi http":
        return WORKERS * THREADS
    return THREADS if re.fullmatch(r"rwsgi w\d+", name) else 0


def settled(site: Site, before: State) -> State:
    """The state when every connection is closed; fails when a descriptor stays open."""
    most = {pid: count + _lanes(before.names[pid]) for pid, count in before.descriptors.items()}

    def is_settled() -> State | None:
        now = look(site)
        return now if all(now.descriptors[pid] <= count for pid, count in most.items()) else None

    until(lambda: set(look(site).names) == set(before.names), "the same processes", context=site.server.log)
    return until(is_settled, f"no more descriptors than {before}", context=lambda: str(look(site)))  # type: ignore[return-value]


def at_rest(site: Site, served: int) -> stats.Document:
    """The document when every worker is idle and what was served is counted: a request is counted after it is answered. When
    that does not come, the last one, for its faults to be told."""
    last: list[stats.Document] = []

    def is_at_rest() -> bool:
        last[:] = [site.server.stats()]
        is_idle = all(worker["status"] == "idle" for worker in last[0]["workers"])
        return is_idle and stats.total(last[0], "requests") >= served

    with suppress(AssertionError):
        until(is_at_rest, "all is counted")
    return last[0]


def faults(site: Site, before: State, after: State, served: int, unknown: int) -> list[str]:
    """What is wrong. `served` is how many requests were served since the start, and `unknown` how many more may be."""
    found = []
    for pid, memory in after.memory.items():
        if memory - before.memory[pid] > GROWTH:
            found.append(f"{after.names[pid]} grew from {before.memory[pid]} to {memory} bytes")
    document = at_rest(site, served)
    counted = stats.total(document, "requests")
    if not served <= counted <= served + unknown:
        found.append(f"{counted} requests counted, {served} served and at most {unknown} more")
    for key in ("exceptions", "harakiri_count", "signal_queue"):
        if stats.total(document, key):
            found.append(f"{key}: {[worker[key] for worker in document['workers']]}")
    respawns = [worker["respawn_count"] for worker in document["workers"]]
    if respawns != [1] * WORKERS:
        found.append(f"respawn_count: {respawns}")
    busy = [worker["id"] for worker in document["workers"] if worker["status"] != "idle"]
    if busy:
        found.append(f"busy without a request: {busy}")
    found += [f"in the log: {line}" for line in site.server.log().splitlines() if _LOST.search(line)][:5]
    return found
