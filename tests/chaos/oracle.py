"""What must hold after a round: pure comparison of what clients saw, what the application wrote down, what the server
counted, and what was done to it.

- Every answer is right, and none is missing.
- Only a process that the run killed may lose a request: one that the application had begun there, or that passed through
  it. A worker behind the http router holds no more requests than it has threads.
- The server counted every request that the application began, except at most one for each thread of a killed worker.
- Every queued job was done, and once, unless the process that did it was killed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from .clients import Attempt, Outcome
from .ledger import Excuse, Kill, Ledger


@dataclass
class Record:
    """What the application wrote down in a round."""

    # Who began each request.
    begun: dict[str, int] = field(default_factory=dict)
    twice: list[str] = field(default_factory=list)
    queued: set[str] = field(default_factory=set)
    # The processes that began, and that did, each job.
    job_begun: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    job_done: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def parse(cls, text: str) -> Record:
        """Reads the application's lines."""
        found = cls()
        for line in text.splitlines():
            word, number, *rest = line.split()
            if word == "begin":
                if number in found.begun:
                    found.twice.append(number)
                found.begun[number] = int(rest[0])
            elif word == "queued":
                found.queued.add(number)
            elif word == "job-begin":
                found.job_begun[number].append(int(rest[0]))
            elif word == "job-end":
                found.job_done[number].append(int(rest[0]))
        return found


@dataclass(frozen=True)
class Counted:
    """What the stats document counted in a round: requests, and the values of the latency histogram, and responses."""

    requests: int
    latencies: int
    responses: int


def judge(
    others: list[Attempt], record: Record, counted: Counted, ledger: Ledger, socket_kind: str, threads: int
) -> list[str]:
    """Everything that is wrong, in words."""
    return [
        *requests(others, record, ledger, socket_kind, threads),
        *counts(others, record, counted, ledger, threads),
        *jobs(record, ledger),
    ]


def requests(others: list[Attempt], record: Record, ledger: Ledger, socket_kind: str, threads: int) -> list[str]:
    """What is wrong with requests that were not answered rightly."""
    faults = [f"the application began request {number} twice" for number in record.twice]
    workers = {kill.pid: kill for kill in ledger.killed("worker")}
    # What passes a router, or what a worker that clients reach has accepted, goes with it.
    holders = ledger.killed("http" if socket_kind == "http" else "worker")
    held: Counter[int] = Counter()
    for attempt in others:
        if attempt.outcome in (Outcome.WRONG, Outcome.HUNG):
            faults.append(str(attempt))
            continue
        excused = attempt.uses_disk and any(_overlap(attempt.begun, attempt.ended, excuse) for excuse in ledger.excuses)
        bad_gateway = attempt.outcome is Outcome.REFUSED and attempt.status in (502, 504)
        if attempt.outcome is Outcome.LEFT or excused:
            continue
        if attempt.outcome is Outcome.REFUSED and not bad_gateway:
            faults.append(str(attempt))
            continue
        holder = record.begun.get(attempt.number)
        if any(_overlap(attempt.idle_since, attempt.ended, kill) for kill in holders):
            continue
        if holder is not None:
            if holder in workers:
                held[holder] += 1
            else:
                faults.append(f"{attempt}; begun by {holder}, which was not killed")
        elif socket_kind != "http" and attempt.reused and attempt.silent:
            # A worker that leaves closes what is idle, and a client may write at that moment: it sends it again.
            continue
        elif socket_kind == "http" and (
            near := [kill for kill in workers.values() if _overlap(attempt.begun, attempt.ended, kill)]
        ):
            # Begun by the server, and not yet by the application.
            held[min(near, key=lambda kill: held[kill.pid]).pid] += 1
        else:
            faults.append(f"{attempt}; nobody began it")
    if socket_kind == "http":
        faults += [
            f"worker {pid} lost {lost} requests with {threads} threads" for pid, lost in held.items() if lost > threads
        ]
    return faults


def _overlap(begun: float, ended: float, other: Kill | Excuse) -> bool:
    first, last = (other.before, other.after) if isinstance(other, Kill) else (other.begun, other.ended)
    return begun <= last and first <= ended


def counts(others: list[Attempt], record: Record, counted: Counted, ledger: Ledger, threads: int) -> list[str]:
    """What is wrong with what the server counted."""
    began = len(record.begun)
    least = began - threads * len(ledger.killed("worker"))
    # The server counts its own refusals, which the application never saw.
    most = began + sum(attempt.number not in record.begun for attempt in others)
    faults = []
    if not least <= counted.requests <= most:
        faults.append(
            f"{counted.requests} requests were counted of {began} that were begun: {least} to {most} are right"
        )
    if counted.latencies != counted.requests:
        faults.append(f"{counted.latencies} latencies were counted of {counted.requests} requests")
    if counted.responses != counted.requests:
        faults.append(f"{counted.responses} responses were counted of {counted.requests} requests")
    return faults


def jobs(record: Record, ledger: Ledger) -> list[str]:
    """What is wrong with jobs."""
    killed = {kill.pid for kill in ledger.killed("spooler")}
    faults = [f"job {number} was queued and never done" for number in sorted(record.queued - set(record.job_done))]
    for number, pids in record.job_begun.items():
        # The last run may be of any process; one before it was followed by another because it was killed.
        if extra := [pid for pid in pids[:-1] if pid not in killed]:
            faults.append(f"job {number} was run by {pids}, and {extra} was not killed")
        if number not in record.begun:
            faults.append(f"job {number} was run, and no request queued it")
    return faults


def last(others: list[Attempt], record: Record, waiting: int) -> list[str]:
    """What is wrong when the server was ended under load: what the application began was answered, and what was queued was
    done or waits. What nobody began found the server gone."""
    faults = []
    for attempt in others:
        if attempt.outcome in (Outcome.WRONG, Outcome.HUNG):
            faults.append(str(attempt))
        elif attempt.number in record.begun:
            faults.append(f"{attempt}; begun by {record.begun[attempt.number]}, and the server was only told to end")
    undone = record.queued - set(record.job_done)
    if len(undone) > waiting:
        faults.append(f"{len(undone)} jobs were queued and not done, and {waiting} wait: {sorted(undone)}")
    return faults
