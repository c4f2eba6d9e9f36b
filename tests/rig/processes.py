"""Looking at processes through /proc. A server's own are those that carry its mark in their environment."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

MARK = "RWSGI_TEST_MARK"


@dataclass(frozen=True)
class Process:
    """A process as /proc shows it at one moment."""

    pid: int
    parent: int
    state: str
    # What it calls itself, cut to 15 bytes by the system.
    name: str
    command: str

    @property
    def rss(self) -> int:
        """Resident memory in bytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def open_files(self) -> list[str]:
        """What its descriptors lead to, as the links in /proc name it."""
        found = []
        try:
            for entry in Path(f"/proc/{self.pid}/fd").iterdir():
                try:
                    found.append(os.readlink(entry))
                except FileNotFoundError:
                    continue
        except (FileNotFoundError, ProcessLookupError):
            # It has just gone.
            return []
        return found

    def threads(self) -> list[str]:
        """What its threads are called; one that has just ended is left out."""
        found = []
        for comm in Path(f"/proc/{self.pid}/task").glob("*/comm"):
            try:
                found.append(comm.read_text().strip())
            except (FileNotFoundError, ProcessLookupError):
                continue
        return found


def look(pid: int) -> Process | None:
    """The process, or None when there is none (a zombie is one, with state `Z`)."""
    try:
        # The name may hold spaces and parentheses; what follows the last one is regular.
        name, rest = Path(f"/proc/{pid}/stat").read_text().split("(", 1)[1].rsplit(")", 1)
        fields = rest.split()
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return Process(pid, int(fields[1]), fields[0], name, command)


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    process = look(pid)
    return process is not None and process.state not in "ZX"


def marked(mark: str) -> list[Process]:
    """Every running process that carries `mark`, whatever its parent is by now."""
    needle = f"{MARK}={mark}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            environ = Path(f"/proc/{entry}/environ").read_bytes()
        except OSError:
            continue
        if needle in environ.split(b"\0"):
            process = look(int(entry))
            if process is not None and process.state not in "ZX":
                found.append(process)
    return found


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Sends the signal; a process that is gone already is fine."""
    assert pid > 0, "0 stands for our own group, and is told of a worker that has no process"
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
