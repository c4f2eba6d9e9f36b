"""The servers, one row each: how its own documentation says to start it. Nothing is measured here."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

from rig import http, processes
from rig.addresses import tcp
from rig.waiting import until

from measure.processes import family

APPS = Path(__file__).resolve().parent.parent / "apps"


@dataclass(frozen=True)
class Place:
    """Where programs are, and where files of a run go."""

    venv: Path
    rwsgi: Path
    floor: Path
    room: Path

    def program(self, name: str) -> str:
        """A program of the virtual environment."""
        return str(self.venv / "bin" / name)


@dataclass(frozen=True)
class Setting:
    """What a server is to be for one work."""

    module: str = "hello"
    processes: int = 1
    threads: int = 1
    connections: int = 64
    logged: bool = False
    # Further options, for the server that they are of.
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Server:
    """A kind of server on a kind of socket."""

    name: str
    command: Callable[[Place, Setting, str], list[str]]
    # The package that it comes from, and is left out without; empty for what is built here.
    package: str = ""
    # What it can do: several threads, several processes, an access log, any application at all.
    threads: bool = True
    processes: bool = True
    logs: bool = False
    runs_python: bool = True
    # Whether a connection may idle between two requests without holding a core.
    idles: bool = True
    notes: str = ""

    def can(self, setting: Setting) -> bool:
        """Whether it can be set up so."""
        return (
            (self.threads or setting.threads == 1)
            and (self.processes or setting.processes == 1)
            and (self.logs or not setting.logged)
        )


def _rwsgi(option: str) -> Callable[[Place, Setting, str], list[str]]:
    def command(place: Place, setting: Setting, address: str) -> list[str]:
        quiet = [] if setting.logged else ["--disable-logging"]
        return [
            *(str(place.rwsgi), "--home", str(place.venv), option, address, "--module", setting.module, "--master"),
            *("--processes", str(setting.processes), "--threads", str(setting.threads)),
            *("--stats", tcp(), *quiet, *setting.options),
        ]

    return command


def _uwsgi(option: str, *more: str) -> Callable[[Place, Setting, str], list[str]]:
    def command(place: Place, setting: Setting, address: str) -> list[str]:
        quiet = [] if setting.logged else ["--disable-logging"]
        # "Things to know": the backlog of 100 is to be raised for many connections, and more processes take a lock.
        backlog = ["--listen", "1024"] if setting.connections > 100 else []
        lock = ["--thunder-lock"] if setting.processes > 1 else []
        threads = ["--threads", str(setting.threads)] if setting.threads > 1 else []
        return [
            *(place.program("uwsgi"), "--home", str(place.venv), option, address, "--module", setting.module),
            *("--master", "--processes", str(setting.processes), *threads, "--need-app", "--enable-threads"),
            *("--die-on-term", *backlog, *lock, *quiet, *more, *setting.options),
        ]

    return command


def _gunicorn(place: Place, setting: Setting, address: str) -> list[str]:
    log = ["--access-logfile", "-"] if setting.logged else []
    return [
        *(place.program("gunicorn"), "--bind", address, "--workers", str(setting.processes)),
        *("--worker-class", "gthread", "--threads", str(setting.threads), *log, *setting.options),
        f"{setting.module}:application",
    ]


def _granian(place: Place, setting: Setting, address: str) -> list[str]:
    host, port = address.split(":")
    log = ["--access-log"] if setting.logged else []
    return [
        *(place.program("granian"), "--interface", "wsgi", "--host", host, "--port", port),
        *("--workers", str(setting.processes), "--blocking-threads", str(setting.threads), *log, *setting.options),
        f"{setting.module}:application",
    ]


def _waitress(place: Place, setting: Setting, address: str) -> list[str]:
    many = ["--connection-limit=2000", "--asyncore-use-poll"] if setting.connections > 100 else []
    return [
        *(place.program("waitress-serve"), f"--listen={address}", f"--threads={setting.threads}", *many),
        f"{setting.module}:application",
    ]


def _script(name: str) -> Callable[[Place, Setting, str], list[str]]:
    def command(place: Place, setting: Setting, address: str) -> list[str]:
        port = address.split(":")[1]
        return [place.program("python"), f"serve_{name}.py", setting.module, port, str(setting.processes)]

    return command


SERVERS = [
    Server("rwsgi --http-socket", _rwsgi("--http-socket"), logs=True),
    Server("rwsgi --http", _rwsgi("--http"), logs=True),
    Server(
        "uwsgi --http-socket", _uwsgi("--http-socket", "--add-header", "Connection: close"), "uWSGI", logs=True,
        idles=False, notes="has no keep-alive on this socket: every request is a connection",
    ),
    Server(
        "uwsgi --http11-socket", _uwsgi("--http11-socket"), "uWSGI", logs=True, idles=False,
        notes="holds a core as long as a connection lives: other connections wait until it ends, "
        "and what wrk never got is in no column",
    ),
    Server("uwsgi --http", _uwsgi("--http", "--http-keepalive", "--http-auto-chunked"), "uWSGI", logs=True),
    Server("gunicorn", _gunicorn, "gunicorn", logs=True, notes="workers of class gthread, which keep connections"),
    Server("granian", _granian, "granian", logs=True),
    Server("bjoern", _script("bjoern"), "bjoern", threads=False, notes="has no threads, no access log"),
    Server("fastwsgi", _script("fastwsgi"), "fastwsgi", threads=False, notes="has no threads, no access log"),
    Server("waitress", _waitress, "waitress", processes=False, notes="has one process, no access log"),
    Server(
        "floor", lambda place, setting, address: [str(place.floor), address], runs_python=False, processes=False,
        threads=False, notes="answers the same bytes to whatever it reads: bench/floor",
    ),
]  # fmt: skip


class Failed(Exception):
    """A server that does not start, or does not answer as it should."""


@dataclass
class Running:
    """A server that serves, until `stop`."""

    server: Server
    command: list[str]
    address: str
    process: subprocess.Popen
    log: Path
    # Seconds from exec to the first whole answer.
    started_in: float = field(default=0.0)

    @property
    def pid(self) -> int:
        """The first process, which leads the session of all others."""
        return self.process.pid

    @property
    def stats(self) -> str:
        """The address of its stats."""
        return self.command[self.command.index("--stats") + 1]

    def complaints(self) -> str:
        """The end of what it said."""
        return self.log.read_text(errors="replace")[-1500:]

    def check(self, path: str, body: bytes | None, size: int | None) -> None:
        """One request, whose answer must be right: a fast wrong answer is no figure."""
        try:
            answer = http.request(self.address, "GET" if body is None else "POST", path, body=body)
        except (OSError, AssertionError) as failure:
            raise Failed(f"{self.server.name} {path}: {type(failure).__name__}: {failure}\n{self.complaints()}") from None
        if answer.status != 200 or size is not None and len(answer.body) != size:
            told = f"{answer.status} with {len(answer.body)} bytes"
            raise Failed(f"{self.server.name} {path}: {told}, expected 200 with {size}\n{self.complaints()}")

    def check_closes(self, path: str) -> None:
        """One request that asks for the connection to be closed, as wrk understands it."""
        try:
            answer = http.request(self.address, "GET", path, {"Connection": "close"})
        except (OSError, AssertionError) as failure:
            raise Failed(f"{self.server.name} {path}: {type(failure).__name__}: {failure}") from None
        if (answer.header("Connection") or "").lower() != "close" and answer.version != "HTTP/1.0":
            raise Failed(f"{self.server.name} keeps a connection that the client asks to close")

    def stop(self) -> None:
        """Stops it, and whatever it started."""
        members = [stat.pid for stat in family(self.pid)]
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pid in members:
            if processes.alive(pid):
                processes.kill(pid)
        until(lambda: not any(processes.alive(pid) for pid in members), f"{self.server.name} is gone")


def _answers(address: str) -> bool:
    try:
        return http.request(address, "GET", "/").status == 200
    except (OSError, AssertionError):
        return False


def start(
    server: Server, place: Place, setting: Setting, address: str = "", serves: Callable[[str], bool] = _answers
) -> Running:
    """Starts a server, on a free port unless told where, and waits until it serves there.

    Raises Failed when it does not.
    """
    address = address or tcp()
    command = server.command(place, setting, address)
    log = place.room / f"{server.name.replace(' ', '')}.log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("UWSGI_", "RWSGI_"))}
    environment.update({"LC_ALL": "C.UTF-8", "BENCH_FILE": str(place.room / "100MB")})
    begun = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=APPS, env=environment,
            start_new_session=True,
        )  # fmt: skip
    running = Running(server, command, address, process, log)
    while True:
        if serves(address):
            running.started_in = time.monotonic() - begun
            return running
        if process.poll() is not None or time.monotonic() - begun > 30:
            running.stop()
            raise Failed(f"{server.name} does not serve: {' '.join(command)}\n{running.complaints()}")
        time.sleep(0.001)
