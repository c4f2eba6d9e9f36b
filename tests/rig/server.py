"""Starting and stopping the server under test, and seeing to it that it leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from rig import processes, stats
from rig.addresses import listening
from rig.waiting import DEADLINE, until

APPS = Path(__file__).resolve().parent.parent / "apps"
LISTENING_OPTIONS = {"--http", "--http-socket", "--socket", "--uwsgi-socket", "--stats", "-s", "--probe"}


@dataclass(frozen=True)
class Program:
    """The server program: `rwsgi`, or a real uWSGI to prove that a test itself is right."""

    path: str

    @property
    def is_uwsgi(self) -> bool:
        """Whether this is the real uWSGI."""
        return os.path.basename(self.path).startswith("uwsgi")

    def command(self, arguments: list[str]) -> list[str]:
        """The command line; what `rwsgi` does by default uWSGI needs to be told."""
        manners = ["--need-app", "--die-on-term", "--enable-threads"] if self.is_uwsgi else []
        return [self.path, *arguments, *manners]


def environment(mark: str, extra: dict[str, str] | None = None) -> dict[str, str]:
    """The environment of a server: this one's, without what would configure it, and with its mark."""
    foreign = ("UWSGI_", "RWSGI_", "PYTEST_", "TESTS_DEADLINE", "COLUMNS", "LINES", "NO_COLOR")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    # Byte code is not written so that tests that rewrite an application never see an old one.
    kept.update({"PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8", processes.MARK: mark})
    kept.update(extra or {})
    return kept


class Server:
    """A running server."""

    def __init__(
        self, program: Program, arguments: list[str], log: Path, cwd: Path, env: dict[str, str] | None, listens: list[str]
    ) -> None:
        self.arguments = arguments
        self.mark = uuid.uuid4().hex
        self.log_path = log
        self.listens = listens + [
            address for option, address in zip(arguments, arguments[1:])
            if option in LISTENING_OPTIONS or (option == "--control" and address.startswith("/"))
        ]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                program.command(arguments),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=environment(self.mark, env),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process id of the master."""
        return self.process.pid

    @property
    def stats_address(self) -> str:
        """The address given as `--stats`."""
        return self.arguments[self.arguments.index("--stats") + 1]

    def stats(self) -> stats.Document:
        """One stats document."""
        return stats.read(self.stats_address)

    def log(self) -> str:
        """Everything logged so far."""
        return self.log_path.read_text(errors="replace")

    def logged(self, pattern: str, count: int = 1) -> list[re.Match[str]]:
        """Waits until `pattern` is in the log `count` times, and returns the matches."""

        def found() -> list[re.Match[str]] | None:
            matches = list(re.finditer(pattern, self.log(), re.MULTILINE))
            return matches if len(matches) >= count else None

        return until(found, f"{pattern!r} {count} times in the log", context=self.log) or []

    def lines(self, text: str) -> list[str]:
        """The lines of the log that contain `text`."""
        return [line for line in self.log().splitlines() if text in line]

    def wait_ready(self) -> Server:
        """Waits until every address listens; an exit before that is a failure that shows the log."""

        def ready() -> bool:
            status = self.process.poll()
            assert status is None, f"the server exited with {status} while starting:\n{self.log()}"
            return all(listening(address) for address in self.listens)

        until(ready, f"listening on {self.listens}", context=self.log)
        return self

    def wait_stats(self, condition: Callable[[stats.Document], object], what: str) -> stats.Document:
        """Waits until `condition` holds for the stats document, and returns it."""
        last: list[stats.Document] = []

        def holds() -> bool:
            last[:] = [self.stats()]
            return bool(condition(last[0]))

        until(holds, what, context=lambda: f"{last}\n{self.log()}")
        return last[0]

    def wait_workers(self, count: int) -> stats.Document:
        """Waits until `count` workers have a process and accept; returns the document that says so."""

        def up(document: stats.Document) -> bool:
            return count == len([w for w in document["workers"] if w["accepting"] and processes.alive(w["pid"])])

        return self.wait_stats(up, f"{count} workers up")

    def processes(self) -> list[processes.Process]:
        """Every running process of this server, adopted or not."""
        return processes.marked(self.mark)

    def send(self, number: int) -> None:
        """Sends a signal to the master."""
        os.kill(self.pid, number)

    def wait_exit(self, deadline: float = DEADLINE) -> int:
        """Waits for the master's exit and returns its status; a signal is negative."""
        try:
            return self.process.wait(deadline)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the master did not exit within {deadline:g} s:\n{self.log()}") from None

    def wait_gone(self) -> None:
        """Waits until no process of this server is left."""
        until(lambda: not self.processes(), "no process left", context=lambda: f"{self.processes()}\n{self.log()}")

    def stop(self) -> None:
        """Stops it the usual way; a process that stays behind is a failure, and is killed."""
        try:
            if self.process.poll() is None:
                self.send(signal.SIGTERM)
                self.wait_exit()
            self.wait_gone()
        finally:
            self.destroy()

    def destroy(self) -> None:
        """Kills whatever is left: the master first, and again what one that has gone to the background has started meanwhile."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

        def nothing_is_left() -> bool:
            left = self.processes()
            for process in left:
                processes.kill(process.pid)
            return not left

        until(nothing_is_left, "no process left", context=self.log)


class Servers:
    """Starts servers in one directory, and stops them all."""

    def __init__(self, program: Program, directory: Path) -> None:
        self.program = program
        self.directory = directory
        self._started: list[Server] = []

    def start(
        self, *arguments: object, cwd: Path = APPS, env: dict[str, str] | None = None, listens: list[str] | None = None
    ) -> Server:
        """Starts a server and does not wait. `listens` are addresses that the arguments do not show (a file's)."""
        log = self.directory / f"server-{len(self._started)}.log"
        server = Server(self.program, [str(a) for a in arguments], log, cwd, env, listens or [])
        self._started.append(server)
        return server

    def __call__(
        self, *arguments: object, cwd: Path = APPS, env: dict[str, str] | None = None, listens: list[str] | None = None
    ) -> Server:
        """Starts a server and waits until it listens on every address."""
        return self.start(*arguments, cwd=cwd, env=env, listens=listens).wait_ready()

    def run(self, *arguments: object, cwd: Path = APPS, env: dict[str, str] | None = None) -> Server:
        """Runs a server that is expected to end by itself, and waits for that; what it leaves behind is a failure."""
        server = self.start(*arguments, cwd=cwd, env=env)
        server.wait_exit()
        server.wait_gone()
        return server

    def stop_all(self) -> None:
        """Stops every one; the first failure is raised when all are gone."""
        failures = []
        for server in reversed(self._started):
            try:
                server.stop()
            except AssertionError as failure:
                failures.append(failure)
        self._started.clear()
        if failures:
            raise failures[0]
