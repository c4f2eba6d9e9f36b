"""A run: rounds of events under load, and after each a rest, in which the oracle counts."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

from rig import stats
from rig.server import Program
from rig.waiting import until

from . import oracle
from .clients import Attempt, Load
from .events import Stage, sequence
from .ledger import Ledger, Loss
from .oracle import Counted, Record
from .site import THREADS, WORKERS, Site

# Events between two rests.
ROUND = 10
# Right answers before the first event of a run, and after each.
WARM_UP, RECOVERED = 300, 50
# What stays open from the first large bodies on: a connection to the http router for each thread, and the router's spare
# descriptors for files.
KEPT = {
    "worker": Counter({"socket:[N]": THREADS}),
    "http": Counter({"socket:[N]": WORKERS * THREADS, "anon_inode:[eventpoll]": 64}),
}
# The share of events after which the server may recover before the next one.
UNHURRIED = 0.6


class Fault(AssertionError):
    """Something that must hold does not."""


@dataclass
class Report:
    """What a run came to."""

    socket_kind: str
    seed: int
    begun: float = field(default_factory=time.monotonic)
    # Each line begins with the seconds since the start.
    lines: list[str] = field(default_factory=list)
    events: dict[str, int] = field(default_factory=dict)
    right: int = 0
    lost: int = 0
    refused: int = 0
    jobs: int = 0
    kills: int = 0
    faults: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Adds a line."""
        self.lines.append(f"{time.monotonic() - self.begun:9.3f} {text}")

    def __str__(self) -> str:
        count = sum(self.events.values())
        return (
            f"seed {self.seed}, --{self.socket_kind}: {count} events in {time.monotonic() - self.begun:.0f} s, "
            f"{self.right} requests answered rightly, {self.lost} lost with {self.kills} killed processes, "
            f"{self.refused} refused, {self.jobs} jobs"
        )


class Run:
    """One server under load, until it has been through its events."""

    def __init__(
        self, program: Program, place: Path, socket_kind: str, seed: int, say: Callable[[str], None] = lambda text: None
    ) -> None:
        self.report, self.say = Report(socket_kind, seed), say
        self.site = Site(program, place, socket_kind)
        self.events = sequence(seed, self.site)
        self._load = Load(self.site.address, socket_kind, seed)
        self._counted = self._count()
        self._baseline: dict[str, Counter[str]] = {}
        self._temp = self.site.disks["temp"].used()

    def go(self, more: Callable[[int], bool]) -> Report:
        """Lets events happen as long as `more`, given how many have happened, says so. Raises Fault."""
        try:
            self._round(0)
            self._baseline = self.site.descriptors()
            done = 0
            while more(done):
                count = next((n for n in range(1, ROUND + 1) if not more(done + n)), ROUND)
                self._round(count)
                done += count
            self._end()
            return self.report
        except Fault:
            raise
        except Exception as failure:
            self.report.faults.append(f"{type(failure).__name__}: {failure}")
            self._fail()
            raise
        finally:
            self._load.abandon()
            self.site.close()

    def _fail(self) -> None:
        events, faults = "\n".join(self.report.lines), "\n".join(self.report.faults)
        raise Fault(f"{self.report}\n{events}\n\nwrong:\n{faults}\n\n{self.site.state()}")

    def _round(self, events: int) -> None:
        seed, socket_kind = self.report.seed, self.site.socket_kind
        load, ledger = Load(self.site.address, socket_kind, seed).start(), Ledger()
        self._load = load
        load.wait_right(WARM_UP if events == 0 else RECOVERED, "before anything happens")
        for _ in range(events):
            self._event(load, ledger)
        if events:
            self.site.wait_whole()
            load.wait_right(RECOVERED, "after the last event of a round")
        self._rest(load.stop().others, ledger)
        self.report.right += load.seen.right

    def _event(self, load: Load, ledger: Ledger) -> None:
        event, chance = next(self.events)
        number = sum(self.report.events.values())
        told: list[str] = []
        self.report.note(f"{number}: {event.name}")
        self.say(self.report.lines[-1])
        kills, excuses = len(ledger.kills), len(ledger.excuses)
        try:
            event.action(Stage(self.site, load, ledger, chance, f"event-{number}", told))
        finally:
            self.report.note(f"{number}: {', '.join(told)}: done")
        self.report.events[event.name] = self.report.events.get(event.name, 0) + 1
        if event.loses is not Loss.HELD and any(kill.what != "forksrv" for kill in ledger.kills[kills:]):
            raise Fault(f"'{event.name}' killed a process, and its row says that it costs {event.loses.value}")
        if event.loses is Loss.NOTHING:
            del ledger.excuses[excuses:]
        # At times the next event finds the server as this one left it.
        if chance.random() < UNHURRIED:
            self.site.wait_whole()
            load.wait_right(RECOVERED, f"after '{event.name}'")

    def _end(self) -> None:
        """Ends the server under load: what it has begun it answers, and nothing stays."""
        _, chance = next(self.events)
        how = chance.choice([signal.SIGTERM, signal.SIGKILL])
        self.report.note(f"the end: {how.name} to the master")
        self._load = Load(self.site.address, self.report.socket_kind, self.report.seed).start()
        self._load.wait_right(RECOVERED, "before the end")
        faults = self.site.end(how)
        others, record = self._load.stop().others, Record.parse(self.site.record.read_text())
        self.report.right += self._load.seen.right
        self.report.faults += faults + oracle.last(others, record, len(self._jobs_left()))
        if self.report.faults:
            self._fail()

    def _rest(self, others: list[Attempt], ledger: Ledger) -> None:
        """With no client left: waits until all is quiet, and counts."""
        site = self.site
        others = others + ledger.others
        until(
            lambda: not self._jobs_left(),
            "all jobs are done",
            60,
            lambda: f"{site.disks['spool'].names()}\n{site.state()}",
        )
        self._quiet()
        record = Record.parse(site.record.read_text())
        now = self._count()
        counted = Counted(
            now.requests - self._counted.requests,
            now.latencies - self._counted.latencies,
            now.responses - self._counted.responses,
        )
        self._counted = now
        os.truncate(site.record, 0)
        self.report.kills += len(ledger.kills)
        self.report.jobs += len(record.job_done)
        self.report.lost += sum(attempt.outcome.name == "LOST" for attempt in others)
        self.report.refused += sum(attempt.outcome.name == "REFUSED" for attempt in others)
        self.report.note(
            f"rest: {counted.requests} counted, {len(record.begun)} begun, {len(others)} not answered rightly"
        )
        self.report.faults += oracle.judge(others, record, counted, ledger, site.socket_kind, THREADS)
        if self._baseline:
            self._settled()
        if self.report.faults:
            self._fail()

    def _settled(self) -> None:
        """Descriptors and temporary files are back to where they were."""
        site = self.site

        def more() -> dict[str, Counter[str]]:
            """What is open beyond the first rest, in processes that have more open than then."""
            now, first = site.descriptors(), self._baseline
            extra = {what: now[what] - first[what] - KEPT.get(what, Counter()) for what in now}
            return {what: names for what, names in extra.items() if names and sum(now[what].values()) > sum(first[what].values())}

        until(lambda: not more(), "as many descriptors are open as before", context=lambda: f"{more()}\n{site.state()}")
        until(lambda: site.disks["temp"].used() <= self._temp, "no temporary file is left", context=site.state)
        assert not site.disks["temp"].names(), site.disks["temp"].names()

    def _jobs_left(self) -> list[str]:
        # What begins with ".new_" is a job that its killed writer did not finish: a spooler removes it when it is old.
        return [name for name in self.site.disks["spool"].names() if name.startswith("uwsgi_spoolfile")]

    def _quiet(self) -> None:
        """Waits until no request is in progress and the counts stay."""

        def quiet() -> bool:
            document = self.site.stats()
            return not document["queue"]["depth"] and not any(
                core["in_request"] for worker in document["workers"] for core in worker["cores"]
            )

        until(quiet, "no request is in progress", 60, self.site.state)

    def _count(self) -> Counted:
        document = self.site.stats()
        return Counted(
            stats.total(document, "requests"),
            stats.histogram_total(document["latency"]),
            sum(stats.responses(document).values()),
        )
