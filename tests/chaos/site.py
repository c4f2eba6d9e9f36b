"""The server of a chaos run: its directories, its processes by what they are for, and what it is told to do."""

from __future__ import annotations

import os
import re
import shutil
import signal
import struct
import subprocess
from collections import Counter
from contextlib import suppress
from pathlib import Path

from rig import processes, stats
from rig.addresses import tcp
from rig.processes import Process
from rig.server import Program, Server, Servers
from rig.waiting import until

from .disks import Disk, can_mount, mounts

HERE = Path(__file__).resolve().parent
WORKERS, THREADS, SPOOLERS = 3, 2, 2
# Descriptors that each process may have open.
DESCRIPTORS = 300
# Seconds: more than any request takes on a busy machine, also when its worker is stopped for a while.
HARAKIRI = 10
# Megabytes.
RSS, EVIL_RSS = 150, 300
# What a process is called, by what it is for.
NAMES = {"forksrv": "forksrv", "http": "http", "worker": "w", "spooler": "spool", "mule": "mule"}


class Site:
    """A running server with one socket: `http`, `http-socket` or `socket`."""

    def __init__(self, program: Program, place: Path, socket_kind: str, max_requests: int = 400) -> None:
        self.socket_kind, self.place, self.address = socket_kind, place, tcp()
        self.small_disks, self.version = can_mount(), 0
        for name in ("temp", "log", "spool", "run"):
            (place / name).mkdir()
        self.record = place / "record"
        self.record.touch()
        self._clock = place / "clock"
        self._clock.write_bytes(struct.pack("q", 0))
        self.clock_moves = self._compile()
        self.write_app()
        self.stats_address = str(place / "run/stats")
        wrapper = place / "wrapper"
        wrapper.write_text(self._wrapper(program.path))
        wrapper.chmod(0o755)
        self._servers = Servers(Program(str(wrapper)), place)
        self.server: Server = self._servers.start(
            "--master", f"--{socket_kind}", self.address, "--wsgi-file", place / "app.py", "--processes", WORKERS,
            "--threads", THREADS, "--stats", self.stats_address, "--pidfile", place / "run/pid",
            "--master-fifo", place / "run/fifo", "--vacuum", "--spooler", place / "spool", "--spooler-processes", SPOOLERS,
            "--spooler-frequency", 1, "--spooler-quiet", "--mule", "--harakiri", HARAKIRI, "--reload-on-rss", RSS,
            "--evil-reload-on-rss", EVIL_RSS, "--min-worker-lifetime", 1, "--max-requests", max_requests,
            "--post-buffering", 32768, "--disable-logging", "--logto", place / "log/log", "--reload-mercy", 20,
            env={"CHAOS_RECORD": str(self.record), "CHAOS_CLOCK": str(self._clock)},
        )  # fmt: skip
        self.server.wait_ready()
        self.disks = {
            name: Disk.of(self.server.pid, place / name, self.small_disks) for name in ("temp", "log", "spool")
        }
        self.wait_whole()

    def _compile(self) -> Path | None:
        """The library that moves the clock, where it can be compiled."""
        library = self.place / "clock.so"
        command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(HERE / "clock.c")]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError:
            return None
        assert done.returncode == 0, done.stderr
        return library

    def _wrapper(self, program: str) -> str:
        preload = f"env LD_PRELOAD='{self.clock_moves}' " if self.clock_moves else ""
        start = f"TMPDIR='{self.place / 'temp'}' exec {preload}'{program}' \"$@\"\n"
        head = f"#!/bin/sh\nset -e\nulimit -n {DESCRIPTORS}\n"
        if not self.small_disks:
            return head + start
        # Each exec keeps the process id, by which the master is known.
        inside = self.place / "inside"
        inside.write_text(f"#!/bin/sh\nset -e\n{mounts(self.place)}\n{start}")
        inside.chmod(0o755)
        return f"{head}exec unshare --mount --propagation private '{inside}' \"$@\"\n"

    # What it is told to do.

    def write_app(self, broken: str = "") -> None:
        """Writes the application under a new version; `broken` is a line that does not load."""
        self.version += 1
        text = (HERE / "app.py").read_text().replace('VERSION = "0"', f'VERSION = "{self.version}"\n{broken}')
        new = self.place / "app.new"
        new.write_text(text)
        new.replace(self.place / "app.py")

    def order(self, letter: str) -> None:
        """Writes an order into the master's pipe."""
        with open(self.place / "run/fifo", "w") as fifo:
            fifo.write(letter)

    def set_clock(self, seconds: int) -> None:
        """Makes the server's clock differ by so much from this one."""
        with self._clock.open("r+b") as file:
            file.write(struct.pack("q", seconds))

    # What it is.

    def of(self, what: str) -> list[Process]:
        """Its processes that are there for `what`, a key of NAMES or `master`."""
        if what == "master":
            return [process for process in self.server.processes() if process.pid == self.server.pid]
        prefix = f"rwsgi {NAMES[what]}"
        found = [process for process in self.server.processes() if process.name.startswith(prefix)]
        return [process for process in found if process.name[len(prefix) :].strip().isdigit() or prefix == process.name]

    def expected(self) -> dict[str, int]:
        """How many processes there are of each kind while nothing happens."""
        http_routers = int(self.socket_kind == "http")
        return {"forksrv": 1, "worker": WORKERS, "spooler": SPOOLERS, "mule": 1, "http": http_routers}

    def stats(self) -> stats.Document:
        """A stats document."""
        return stats.read(self.stats_address)

    def whole(self) -> bool:
        """Whether every process that should run does, and no other, and all workers take requests."""
        if any(len(self.of(what)) != count for what, count in self.expected().items()):
            return False
        try:
            document = self.stats()
        except (OSError, ValueError):
            return False
        generation = document["generation"]
        return all(
            worker["accepting"] and processes.alive(worker["pid"]) and worker["generation"] == generation
            for worker in document["workers"]
        )

    def wait_whole(self) -> None:
        """Waits for it. A process that died early again and again is started after up to 30 s."""
        until(self.whole, "every process runs", 90, self.state)

    def state(self) -> str:
        """What there is, for a person who looks for a fault."""
        try:
            document = self.stats()
            workers = [(w["pid"], w["status"], w["accepting"], w["generation"]) for w in document["workers"]]
            told = f"generation {document['generation']}, workers {workers}"
        except (OSError, ValueError) as failure:
            told = f"no stats: {failure}"
        running = [f"{process.name} {process.pid} {process.state}" for process in self.server.processes()]
        return f"{told}\n{running}\n{self.log()[-6000:]}"

    def log(self) -> str:
        """What it said: before the log was opened, and then."""
        return self.server.log() + self.disks["log"].read("log") if hasattr(self, "disks") else self.server.log()

    def descriptors(self) -> dict[str, Counter[str]]:
        """What is open, and how often, in the process of each kind that has most open; names are without numbers."""
        # The master keeps a file open of each process that the last document told of.
        self.stats()
        found: dict[str, Counter[str]] = {}
        for what in ["master", *[what for what, count in self.expected().items() if count]]:
            found[what] = Counter()
            for process in self.of(what):
                try:
                    opened = Counter(re.sub(r"\d+", "N", name) for name in process.open_files())
                except OSError:
                    # It has just ended.
                    continue
                found[what] = max(found[what], opened, key=lambda names: sum(names.values()))
        return found

    # How it ends.

    def end(self, how: signal.Signals) -> list[str]:
        """Ends it by a signal to the master: SIGTERM, or SIGKILL, which is no reason for the others to stay. Gives what is
        wrong with how it ended. Jobs may wait for the next start."""
        self.server.send(how)
        status = self.server.wait_exit(60)
        faults = [] if status == (0 if how == signal.SIGTERM else -how) else [f"the master exited with {status}"]
        with suppress(AssertionError):
            until(lambda: not self.server.processes(), "every process is gone", 60)
        faults += [f"left running: {process}" for process in self.server.processes()]
        faults += [f"left behind: temp/{name}" for name in self.disks["temp"].names()]
        faults += [f"left behind: temp, {used} bytes" for used in [self.disks["temp"].used()] if used]
        if how == signal.SIGTERM:
            faults += [f"left behind: run/{name}" for name in os.listdir(self.place / "run") if name != "fifo"]
        strange = [name for name in self.disks["spool"].names() if not name.startswith("uwsgi_spoolfile_on_")]
        return faults + [f"left behind: spool/{name}" for name in strange]

    def close(self) -> None:
        """Kills what is left, and removes its directory's large files."""
        for process in self.server.processes():
            processes.kill(process.pid, signal.SIGCONT)
        self.server.destroy()
        for disk in self.disks.values() if hasattr(self, "disks") else ():
            disk.close()
        shutil.rmtree(self.place / "temp", ignore_errors=True)
