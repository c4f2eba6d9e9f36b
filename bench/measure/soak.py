"""A soak: servers under a steady load for hours, with reloads and recycling; memory and descriptors of each of their
processes' roles are sampled, and each series gets a slope."""

from __future__ import annotations

import os
import re
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Callable

from measure.mixed import Steady
from measure.processes import family
from measure.servers import Place, Running, Setting, SERVERS, start
from measure.slope import Point, Slope, fit, medians


@dataclass(frozen=True)
class Soaked:
    """One server of the table in `servers`, and how it is had to recycle its workers; SIGHUP reloads every one."""

    name: str
    # The options for workers that are replaced after so many requests.
    recycling: Callable[[int], tuple[str, ...]]
    # Others, so that its processes can be told apart.
    more: tuple[str, ...] = ()


def _max_requests(number: int) -> tuple[str, ...]:
    return ("--max-requests", str(number))


SOAKED = [
    Soaked("rwsgi --http", _max_requests),
    Soaked("rwsgi --http-socket", _max_requests),
    Soaked("uwsgi --http", _max_requests, ("--auto-procname",)),
    Soaked("gunicorn", _max_requests),
    # It knows no number of requests; a minute is the least it takes.
    Soaked("granian", lambda number: ("--workers-lifetime", "60", "--respawn-failed-workers")),
]
_ROLES = {"http": "http router", "forksrv": "fork server"}
_TITLE = re.compile(r"(?:rwsgi|uWSGI) (http|forksrv)")


def role(pid: int, root: int) -> str:
    """What a process is for, by what it calls itself: the first one of a server is its master, one of no other name a
    worker."""
    if pid == root:
        return "master"
    for file in ("comm", "cmdline"):
        if found := _TITLE.match(Path(f"/proc/{pid}/{file}").read_text(errors="replace").replace("\0", " ")):
            return _ROLES[found[1]]
    return "workers"


_ROLLUP = re.compile(r"^(Rss|Pss|Private_Clean|Private_Dirty):\s+(\d+) kB", re.M)
_SHARED = re.compile(
    r"^\S+ \S+ \S+ \S+ \S+\s+/memfd:\S+.*\n(?:Size.*\n|KernelPageSize.*\n|MMUPageSize.*\n)*Rss:\s+(\d+) kB", re.M
)


def look(root: int) -> dict[tuple[str, str], int]:
    """One sample of a server: by role and measure (`RSS`, `PSS`, `USS` in bytes, `descriptors`), summed over the role's
    processes; the memory files that the master maps are a role of their own, `shared memory`."""
    found: dict[tuple[str, str], int] = {}

    def add(who: str, what: str, value: int) -> None:
        found[who, what] = found.get((who, what), 0) + value

    for stat in family(root):
        try:
            who = role(stat.pid, root)
            sizes = {
                key: int(value) * 1024
                for key, value in _ROLLUP.findall(Path(f"/proc/{stat.pid}/smaps_rollup").read_text())
            }
            descriptors = len(os.listdir(f"/proc/{stat.pid}/fd"))
        except OSError:
            # It has just ended.
            continue
        if not sizes:
            continue
        add(who, "RSS", sizes["Rss"])
        add(who, "PSS", sizes["Pss"])
        add(who, "USS", sizes["Private_Clean"] + sizes["Private_Dirty"])
        add(who, "descriptors", descriptors)
    try:
        mapped = [int(size) * 1024 for size in _SHARED.findall(Path(f"/proc/{root}/smaps").read_text())]
    except OSError:
        mapped = []
    if mapped:
        add("shared memory", "RSS", sum(mapped))
    return found


@dataclass
class Watched:
    """A server that soaks."""

    running: Running
    load: Steady
    series: dict[tuple[str, str], list[Point]] = field(default_factory=dict)
    reloads: int = 0

    def sample(self, moment: float) -> None:
        """Adds a sample, `moment` seconds after the start."""
        for key, value in look(self.running.pid).items():
            self.series.setdefault(key, []).append((moment, float(value)))

    def reload(self) -> None:
        """Has it load the application again."""
        self.running.process.send_signal(signal.SIGHUP)
        self.reloads += 1

    @property
    def name(self) -> str:
        """As in the table of servers."""
        return self.running.server.name


@dataclass(frozen=True)
class Plan:
    """How long, how much, how often; times in seconds."""

    seconds: float
    rate: float
    reload_every: float
    max_requests: int
    sample_every: float
    # What the samples before this moment say of growth is nothing: caches fill, pools are made.
    warm_up: float


def begin(soaked: Soaked, place: Place, plan: Plan) -> Watched:
    """Starts a server of two processes of two threads, and its load."""
    server = next(server for server in SERVERS if server.name == soaked.name)
    options = (*soaked.recycling(plan.max_requests), *soaked.more)
    running = start(server, place, Setting(processes=2, threads=2, options=options))
    return Watched(running, Steady(running.address, plan.rate).start())


def soak(
    servers: list[Soaked], place: Place, plan: Plan, tell: Callable[[list[Watched], float], None]
) -> list[Watched]:
    """Has all of them soak at the same time, and calls `tell` at each reload and at the end. One that exits is sampled no
    more; its clients go on, and lose."""
    watched: list[Watched] = []
    begun = time.monotonic()
    next_reload = plan.reload_every
    try:
        for soaked in servers:
            watched.append(begin(soaked, place, plan))
        while (moment := time.monotonic() - begun) < plan.seconds:
            alive = [each for each in watched if each.running.process.poll() is None]
            if moment >= next_reload:
                next_reload += plan.reload_every
                for each in alive:
                    each.reload()
                tell(watched, moment)
            for each in alive:
                each.sample(moment)
            time.sleep(max(0.0, min(plan.sample_every - (time.monotonic() - begun - moment), plan.seconds - moment)))
    finally:
        for each in watched:
            each.load.stop()
        for each in watched:
            each.running.stop()
    tell(watched, plan.seconds)
    return watched


def slope(points: list[Point], plan: Plan) -> tuple[Slope, float, float]:
    """The slope after the warm-up, and the medians of the first and the last fifth."""
    warm = medians([point for point in points if point[0] >= plan.warm_up], plan.reload_every)
    if not warm:
        return fit([]), 0.0, 0.0
    fifth = max(1, len(warm) // 5)
    return fit(warm), median(value for _, value in warm[:fifth]), median(value for _, value in warm[-fifth:])
