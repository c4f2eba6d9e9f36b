"""What a server's processes cost: processor time and memory, of all of them together. Nothing is started here."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Stat:
    """One line of `/proc/PID/stat`, as far as it is needed. Times in seconds."""

    pid: int
    state: str
    parent: int
    session: int
    # User and system time of the process itself, in steps of the kernel's tick.
    own: float
    # The same of children that ended and were waited for, with theirs.
    reaped: float


def parse_stat(text: str) -> Stat:
    """Reads one line; the name in it may hold spaces and parentheses, what follows its last one is regular."""
    head, rest = text.rsplit(")", 1)
    fields = rest.split()
    user, system, children_user, children_system = (int(field) / _TICK for field in fields[11:15])
    pid = int(head.split("(", 1)[0])
    return Stat(pid, fields[0], int(fields[1]), int(fields[3]), user + system, children_user + children_system)


def family(root: int) -> list[Stat]:
    """The process `root`, everything in its session, and all descendants of these: daemons' tricks included."""
    everything = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                everything[int(entry)] = parse_stat(Path(f"/proc/{entry}/stat").read_text())
            except (FileNotFoundError, ProcessLookupError):
                continue
    found = {pid for pid, stat in everything.items() if pid == root or stat.session == root}
    while True:
        more = {pid for pid, stat in everything.items() if stat.parent in found} - found
        if not more:
            return [everything[pid] for pid in found]
        found |= more


def processor_time(stat: Stat) -> float:
    """Seconds of processor time of a process so far, to the nanosecond where the kernel lets its clock be read."""
    try:
        # The clock of another process, as clock_getcpuclockid(3) makes it: CPUCLOCK_SCHED, all threads, ended ones too.
        return time.clock_gettime((~stat.pid << 3) | 2)
    except OSError:
        return stat.own


def spent(root: int) -> float:
    """Seconds of processor time of a whole server so far. A child that ends moves its time to who waits for it, so the
    difference of two calls is what was spent between them, whoever came and went."""
    return sum(processor_time(stat) + stat.reaped for stat in family(root))


def busy() -> float:
    """Seconds of processor time that this machine spent on anything since it started."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _waiting, irq, softirq = (int(field) / _TICK for field in fields[:7])
    return user + nice + system + irq + softirq


def memory(root: int, key: str = "Pss") -> int:
    """Bytes of memory of a whole server, shared pages in equal parts (`Pss`), or by another key of smaps_rollup."""
    total = 0
    for stat in family(root):
        try:
            text = Path(f"/proc/{stat.pid}/smaps_rollup").read_text()
        except (OSError, ProcessLookupError):
            continue
        total += sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(f"{key}:"))
    return total
