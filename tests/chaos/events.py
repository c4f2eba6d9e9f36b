"""The events of a run, one row each. An event without a row does not happen."""

from __future__ import annotations

import random
import signal
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Callable, Iterator

from rig import processes
from rig.addresses import connect
from rig.http import head
from rig.processes import Process
from rig.waiting import until

from .clients import Attempt, Load, Outcome, ask, leave
from .ledger import Excuse, Kill, Ledger, Loss
from .oracle import Record
from .site import EVIL_RSS, RSS, Site


@dataclass
class Stage:
    """What an event acts on."""

    site: Site
    load: Load
    ledger: Ledger
    # The event's own chance: what it does follows from the seed alone, whatever the machine is busy with.
    chance: random.Random
    # A number for requests of the event.
    number: str
    # What it did, in words, for the log of events.
    told: list[str]

    def say(self, text: str) -> None:
        """Adds to the log of events."""
        self.told.append(text)

    def one(self, what: str) -> Process | None:
        """A process of this kind, by chance; None when there is none at this moment."""
        found = sorted(self.site.of(what), key=lambda process: (process.name, process.pid))
        return self.chance.choice(found) if found else None

    def kill(self, what: str, process: Process | None) -> None:
        """Kills it, and waits until it is gone."""
        if process is None:
            self.say(f"no {what} to kill")
            return
        self.say(f"kill {process.name} {process.pid}")
        before = time.monotonic()
        processes.kill(process.pid)
        until(lambda: not processes.alive(process.pid), f"{process} is gone")
        self.ledger.kills.append(Kill(what, process.pid, before, time.monotonic()))

    def gone(self, what: str, pid: int, since: float) -> None:
        """Waits until the server itself has ended a process, whose requests may go with it."""
        until(lambda: not processes.alive(pid), f"{what} {pid} is gone", context=self.site.state)
        self.ledger.kills.append(Kill(what, pid, since, time.monotonic()))

    def ask(self, target: str) -> Attempt:
        """A request of the event's own."""
        return ask(self.site.address, self.site.socket_kind, self.number, target)


@dataclass(frozen=True)
class Event:
    """One row."""

    name: str
    action: Callable[[Stage], None]
    loses: Loss = Loss.NOTHING
    # What it cannot happen without.
    possible: Callable[[Site], bool] = lambda site: True


def _kill(what: str) -> Callable[[Stage], None]:
    return lambda stage: stage.kill(what, stage.one(what))


def _kill_all_workers(stage: Stage) -> None:
    for process in stage.site.of("worker"):
        stage.kill("worker", process)


def _stop_for_a_while(what: str) -> Callable[[Stage], None]:
    """SIGSTOP and, before harakiri would end what it holds, SIGCONT."""

    def action(stage: Stage) -> None:
        process = stage.one(what)
        if process is None:
            return
        stage.say(f"stop {process.name} {process.pid}")
        processes.kill(process.pid, signal.SIGSTOP)
        try:
            stage.load.linger(40, 1.0)
        finally:
            processes.kill(process.pid, signal.SIGCONT)

    return action


def _harakiri(stage: Stage) -> None:
    since = time.monotonic()
    attempt = stage.ask("/hang")
    assert attempt.outcome in (Outcome.LOST, Outcome.REFUSED), f"harakiri: {attempt}"
    holder = Record.parse(stage.site.record.read_text()).begun[attempt.number]
    stage.say(f"worker {holder}: {attempt.outcome.value} {attempt.status}")
    stage.ledger.others.append(attempt)
    stage.gone("worker", holder, since)


def _eat(megabytes: int) -> int:
    return megabytes * 5 // 4


def _over_rss(stage: Stage) -> None:
    attempt = stage.ask(f"/eat?{_eat(RSS)}")
    assert attempt.outcome is Outcome.RIGHT, f"{attempt}"
    holder = Record.parse(stage.site.record.read_text()).begun[attempt.number]
    stage.say(f"worker {holder}")
    until(lambda: not processes.alive(holder), f"worker {holder} is replaced", context=stage.site.state)


def _over_evil_rss(stage: Stage) -> None:
    since = time.monotonic()
    attempt = stage.ask(f"/eat?{_eat(EVIL_RSS)}")
    if attempt.outcome is not Outcome.RIGHT:
        stage.ledger.others.append(attempt)
    holder = Record.parse(stage.site.record.read_text()).begun[attempt.number]
    stage.say(f"worker {holder}: {attempt.outcome.value}")
    stage.gone("worker", holder, since)


def _reload(stage: Stage) -> None:
    site = stage.site
    site.wait_whole()
    before = site.stats()["generation"]
    site.write_app()
    by = stage.chance.choice(["SIGHUP", "r", "c"])
    stage.say(f"{by}, version {site.version}")
    if by == "SIGHUP":
        site.server.send(signal.SIGHUP)
    else:
        site.order(by)
    until(lambda: site.stats()["generation"] > before and site.whole(), "the next generation serves", 60, site.state)


BROKEN = ["this is no Python", "raise RuntimeError('not today')", "import os; os._exit(3)", "import no_such_module"]


def _reload_to_broken(stage: Stage) -> None:
    site, line = stage.site, stage.chance.choice(BROKEN)
    site.wait_whole()
    failed = "failed to load"
    count = site.log().count(failed)
    site.write_app(line)
    stage.say(line)
    try:
        site.server.send(signal.SIGHUP)
        until(lambda: site.log().count(failed) > count, "the log says that it failed to load", 60, site.state)
        stage.load.wait_right(20, "while the new application does not load")
    finally:
        site.write_app()


def _kill_in_reload(stage: Stage) -> None:
    site = stage.site
    site.write_app()
    site.server.send(signal.SIGHUP)
    stage.load.linger(stage.chance.randint(0, 30), 0.5)
    what = stage.chance.choice(["worker", "forksrv", "spooler"])
    stage.kill(what, stage.one(what))


def _two_reloads(stage: Stage) -> None:
    for _ in range(2):
        stage.site.write_app()
        stage.site.server.send(signal.SIGHUP)
        stage.load.linger(stage.chance.randint(0, 20), 0.3)


def _fill(name: str) -> Callable[[Stage], None]:
    def action(stage: Stage) -> None:
        begun, disk = time.monotonic(), stage.site.disks[name]
        disk.fill()
        try:
            stage.load.linger(150, 3.0)
        finally:
            disk.free()
            # What had begun while it was full may end a little later: all who wait now have been answered then.
            stage.load.linger(30, 3.0)
            stage.ledger.excuses.append(Excuse(begun, time.monotonic()))

    return action


def _descriptors_out(stage: Stage) -> None:
    """More clients than any process may have descriptors, each with the beginning of a head."""
    with ExitStack() as stack:
        taken = 0
        for _ in range(400):
            try:
                client = stack.enter_context(connect(stage.site.address, 5.0))
            except OSError:
                break
            taken += 1
            client.sendall(head("GET", "/hello")[:12] if stage.site.socket_kind != "socket" else b"\0\x40")
        stage.say(f"{taken} clients")
        stage.load.linger(60, 2.0)


CLOCKS = [3600, -3600, 86400 * 400, -86400 * 30, 5, -5]


def _clock(stage: Stage) -> None:
    for seconds in stage.chance.sample(CLOCKS, 3):
        stage.say(f"{seconds:+} s")
        stage.site.set_clock(seconds)
        stage.load.linger(40, 1.0)
    stage.site.set_clock(0)


def _stats_flood(stage: Stage) -> None:
    """Monitors that connect and say and read nothing, and others that poll: what these get is whole, and never less."""
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(connect(stage.site.stats_address, 30.0))
        last = 0
        for _ in range(60):
            requests = sum(worker["requests"] for worker in stage.site.stats()["workers"])
            assert requests >= last, f"the stats counted {last} requests, and then {requests}"
            last = requests


def _clients_leave(stage: Stage) -> None:
    """Clients that reset their connections in the middle of a head, of a body, or instead of reading the answer."""
    for number in range(20):
        name = f"{stage.number}-{number}"
        whole = head("POST", "/upload", {"X-Id": name}, b"x" * 70_000) + b"x" * 70_000
        download = head("GET", "/download?300000", {"X-Id": name})
        data = stage.chance.choice([whole[:20], whole[:50_000], whole, download])
        now = time.monotonic()
        leave(stage.site.address, data)
        stage.ledger.others.append(Attempt(name, "a client that leaves", True, now, now, outcome=Outcome.LEFT))


def _has_router(site: Site) -> bool:
    return site.socket_kind == "http"


def _speaks_http(site: Site) -> bool:
    return site.socket_kind != "socket"


def _has_small_disks(site: Site) -> bool:
    return site.small_disks


def _clock_moves(site: Site) -> bool:
    return site.clock_moves is not None


EVENTS = [
    Event("a worker killed", _kill("worker"), Loss.HELD),
    Event("all workers killed", _kill_all_workers, Loss.HELD),
    Event("the fork server killed", _kill("forksrv")),
    Event("the http router killed", _kill("http"), Loss.HELD, _has_router),
    Event("a spooler killed", _kill("spooler"), Loss.HELD),
    Event("the mule killed", _kill("mule"), Loss.HELD),
    Event("a worker stopped", _stop_for_a_while("worker")),
    Event("the http router stopped", _stop_for_a_while("http"), possible=_has_router),
    Event("the fork server stopped", _stop_for_a_while("forksrv")),
    Event("a spooler stopped", _stop_for_a_while("spooler")),
    Event("the master stopped", _stop_for_a_while("master")),
    Event("harakiri", _harakiri, Loss.HELD),
    Event("a worker over reload-on-rss", _over_rss),
    Event("a worker over evil-reload-on-rss", _over_evil_rss, Loss.HELD),
    Event("reload", _reload),
    Event("reload to what does not load", _reload_to_broken),
    Event("reload twice", _two_reloads),
    Event("reload and a kill", _kill_in_reload, Loss.HELD),
    Event("temporary files: disk full", _fill("temp"), Loss.REFUSALS, _has_small_disks),
    Event("log: disk full", _fill("log"), Loss.NOTHING, _has_small_disks),
    Event("spooler: disk full", _fill("spool"), Loss.REFUSALS, _has_small_disks),
    Event("no descriptors left", _descriptors_out),
    Event("clock back and forth", _clock, possible=_clock_moves),
    Event("stats flood", _stats_flood),
    Event("clients leave", _clients_leave, possible=_speaks_http),
]


def sequence(seed: int, site: Site) -> Iterator[tuple[Event, random.Random]]:
    """The events of a run, each with its own chance: all that are possible here in a random order, then all in another.
    It follows from the seed and from what is possible."""
    chance = random.Random(f"{seed} {site.socket_kind}")
    possible = [event for event in EVENTS if event.possible(site)]
    while True:
        for event in chance.sample(possible, len(possible)):
            yield event, random.Random(chance.getrandbits(64))
