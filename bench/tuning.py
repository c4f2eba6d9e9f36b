#!/usr/bin/env python3
"""What the settings of docs/tuning.md do, measured on the project's examples.

    bench/tuning.py [--rwsgi PROGRAM] [--rounds N] [--write] [--smoke] [--only NAME]

Prints the tables of docs/tuning.md, or with --write puts them there. Each table's settings take turns, round after round, and shown
are medians: what else runs on the machine disturbs all of them alike. Pages that wait do not need the processor, so their
latencies hold on a busy machine too; memory and counts do anyway. As root it runs servers and clients at a raised priority: pages
that compute would tell of the machine's other work otherwise. --smoke is a round of each in some seconds, to see that it works.
Needs rwsgi, Flask and Django in the environment of this Python.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import platform
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "tuning.md"
FLASK = ("--pythonpath", ROOT / "bench" / "apps", "--module", "tuned:app")
DJANGO = ("--pythonpath", ROOT / "examples" / "django", "--module", "demo.wsgi")


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    rounds: int
    # Clients at once, and for how long.
    clients: int
    seconds: float


# Nice value of servers and clients, where it may be set.
PRIORITY = -15 if os.geteuid() == 0 else 0

WHOLE, SMOKE = Extent(3, 32, 3), Extent(1, 8, 0.3)


def fail(why: str) -> None:
    sys.exit(f"bench/tuning.py: {why}")


def until(condition: Callable[[], object], what: str, seconds: float = 60) -> object:
    end = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > end:
            fail(f"after {seconds:g} s still not: {what}")
        time.sleep(0.02)
    return result


def free_port() -> int:
    """A port below those that the system gives to clients, so that none takes it meanwhile."""
    while True:
        port = random.randrange(11000, 19000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def raise_priority(pid: int) -> None:
    """Of the sessions of a machine each gets its share, unless its group says otherwise (sched_autogroup)."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(PRIORITY))


class Server:
    """A running server."""

    def __init__(self, program: str, directory: Path, options: tuple[object, ...], kind: str, application: tuple[object, ...]) -> None:
        self.port, self.stats_path = free_port(), directory / "stats.sock"
        self.address = str(directory / "app.sock") if kind == "unix" else f"127.0.0.1:{self.port}"
        listen = ("--http" if kind == "http" else "--http-socket", self.address)
        command = [program, *listen, *application, "--stats", self.stats_path, "--disable-logging", "--prio", PRIORITY, *options]
        self.log = directory / "server.log"
        with self.log.open("wb") as output:
            arguments = [str(part) for part in command]
            self.process = subprocess.Popen(arguments, stdout=output, stderr=output, start_new_session=True, cwd=directory)
        raise_priority(self.process.pid)
        until(self._serves, "the server serves")

    def _serves(self) -> bool:
        if self.process.poll() is not None:
            fail(f"the server has left\n{self.log.read_text()}")
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.get("/").status < 500
        return False

    def connect(self, timeout: float = 60) -> socket.socket:
        """A new connection."""
        if self.address.startswith("/"):
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(timeout)
            connection.connect(self.address)
            return connection
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def open(self) -> http.client.HTTPConnection:
        """A client that keeps its connection."""
        client = http.client.HTTPConnection("localhost", timeout=60)
        client.sock = self.connect()
        return client

    def get(self, path: str) -> http.client.HTTPResponse:
        client = self.open()
        try:
            client.request("GET", path)
            response = client.getresponse()
            response.read()
            return response
        finally:
            client.close()

    def stats(self) -> dict:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.stats_path))
            return json.loads(b"".join(iter(lambda: connection.recv(65536), b"")))

    def running(self) -> int:
        """Workers that run."""
        return sum(worker["status"] != "cheap" for worker in self.stats()["workers"])

    def processes(self) -> list[int]:
        """All processes of the server: it is the leader of their session."""
        found = []
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                if entry.isdigit() and os.getsid(int(entry)) == self.process.pid:
                    found.append(int(entry))
        return found

    def memory(self) -> float:
        """Proportional set size of all its processes, megabytes."""
        total = 0
        for pid in self.processes():
            with contextlib.suppress(OSError):
                total += int(re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)[1])
        return total / 1024

    def processor(self) -> float:
        """User and system time of all its processes, seconds."""
        # The clock of another process, as clock_getcpuclockid(3) makes it.
        return sum(time.clock_gettime((~pid << 3) | 2) for pid in self.processes())

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Bench:
    """Starts servers one after another."""

    def __init__(self, program: str, extent: Extent) -> None:
        self.program, self.extent = program, extent

    @contextlib.contextmanager
    def server(self, *options: object, kind: str = "http-socket", application: tuple[object, ...] = FLASK) -> Iterator[Server]:
        with tempfile.TemporaryDirectory(prefix="tuning-") as directory:
            server = Server(self.program, Path(directory), options, kind, application)
            try:
                yield server
            finally:
                server.stop()

    def rounds(self, settings: list, measure: Callable[[object], dict[str, float]]) -> list[dict[str, float]]:
        """Medians of each setting's figures; the settings take turns, in another order in every round."""
        seen: list[list[dict[str, float]]] = [[] for _ in settings]
        for number in range(self.extent.rounds):
            for offset in range(len(settings)):
                place = (offset + number) % len(settings)
                seen[place].append(measure(settings[place]))
        return [{name: statistics.median(each[name] for each in runs) for name in runs[0]} for runs in seen]


def load(server: Server, path: str, clients: int, requests: int = 1 << 30, seconds: float = 1e9) -> tuple[list[float], float]:
    """Clients at once that each send so many requests one after another, or for so long: the latencies, and how long all took.
    Seconds."""
    latencies: list[float] = []
    gate = threading.Barrier(clients + 1)

    def ask() -> None:
        client = server.open()
        gate.wait()
        end = time.monotonic() + seconds
        for _ in range(requests):
            begun = time.monotonic()
            if begun > end:
                break
            client.request("GET", path)
            response = client.getresponse()
            response.read()
            if response.status != 200:
                fail(f"{path} answers {response.status}")
            latencies.append(time.monotonic() - begun)
        client.close()

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    gate.wait()
    begun = time.monotonic()
    for thread in threads:
        thread.join()
    return latencies, time.monotonic() - begun


def percentile(values: list[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def table(head: list[str], rows: list[list[object]]) -> str:
    def text(value: object) -> str:
        if isinstance(value, float):
            return f"{value:,.0f}" if value >= 100 else f"{value:.2g}" if value < 1 else f"{value:.1f}"
        return f"{value:,}" if isinstance(value, int) else str(value)

    lines = [head, ["---" if not place else "---:" for place in range(len(head))], *rows]
    return "\n".join("| " + " | ".join(map(text, line)) + " |" for line in lines) + "\n"


# --- The tables


def waiting(bench: Bench) -> str:
    settings = [(1, 1), (4, 1), (1, 8), (4, 4), (2, 16), (1, 32)]
    extent = bench.extent

    def measure(setting: tuple[int, int]) -> dict[str, float]:
        processes, threads = setting
        with bench.server("--processes", processes, "--threads", threads) as server:
            latencies, took = load(server, "/wait", extent.clients, seconds=extent.seconds)
            milliseconds = [1000 * latency for latency in latencies]
            return {"rate": len(latencies) / took, "median": percentile(milliseconds, 50), "p99": percentile(milliseconds, 99), "memory": server.memory()}

    found = bench.rounds(settings, measure)
    rows = [
        [f"{processes} × {threads}", processes * threads, each["rate"], each["median"], each["p99"], each["memory"]]
        for (processes, threads), each in zip(settings, found)
    ]  # fmt: skip
    return table(["processes × threads", "at once", "requests/s", "median, ms", "99 %, ms", "memory, MB"], rows)


def computing(bench: Bench) -> str:
    settings = [(1, 1), (1, 4), (2, 1), (2, 4)]
    seconds = 1.0 if bench.extent.rounds > 1 else 0.1

    def measure(setting: tuple[int, int]) -> dict[str, float]:
        processes, threads = setting
        with bench.server("--processes", processes, "--threads", threads) as server:
            before = server.processor()
            latencies, _ = load(server, "/compute", 8, seconds=seconds)
            return {"cost": 1000 * (server.processor() - before) / len(latencies)}

    found = bench.rounds(settings, measure)
    rows = [[f"{processes} × {threads}", each["cost"]] for (processes, threads), each in zip(settings, found)]
    return table(["processes × threads", "processor time of a request, ms"], rows)


def backlog(bench: Bench) -> str:
    settings = [(kind, listen) for kind in ("unix", "http-socket", "http") for listen in (10, 100, 1000)]
    burst = 300 if bench.extent.rounds > 1 else 40

    def measure(setting: tuple[str, int]) -> dict[str, float]:
        kind, listen = setting
        with bench.server("--listen", listen, "--threads", 4, kind=kind) as server:
            served, refused, longest = [], [], [0.0]
            begun = time.monotonic()

            def ask() -> None:
                try:
                    connection = server.connect()
                    connection.sendall(b"GET /wait?ms=20 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    answer = b"".join(iter(lambda: connection.recv(65536), b""))
                except OSError:
                    answer = b""
                (served if b" 200 " in answer[:20] else refused).append(1)
                longest.append(time.monotonic() - begun)

            threads = [threading.Thread(target=ask, daemon=True) for _ in range(burst)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return {"served": len(served), "refused": len(refused), "longest": max(longest)}

    found = bench.rounds(settings, measure)
    names = {"unix": "`http-socket`, unix", "http-socket": "`http-socket`, TCP", "http": "`http`, TCP"}
    rows = [[f"{names[kind]}, `listen = {listen}`", int(each["served"]), int(each["refused"]), each["longest"]]
            for (kind, listen), each in zip(settings, found)]  # fmt: skip
    return table(["socket", "served", "not served", "longest, s"], rows)


def slow_clients(bench: Bench) -> str:
    """What an ordinary client gets while slow ones are at work: one worker with two threads, four slow clients."""
    cases = ["nobody is slow", "uploads of 8 MB that stop halfway", "readers of 8 MB in one piece that stop", "readers of 8 MB in pieces that stop"]
    settings = [(case, kind) for case in range(len(cases)) for kind in ("http-socket", "http")]

    def measure(setting: tuple[int, str]) -> dict[str, float]:
        case, kind = setting
        with bench.server("--threads", 2, kind=kind) as server:
            slow = []
            for _ in range(4 if case else 0):
                connection = server.connect()
                if case == 1:
                    connection.sendall(b"POST /size HTTP/1.1\r\nHost: x\r\nContent-Length: 8388608\r\n\r\n" + b"x" * (4 << 20))
                else:
                    path = b"/large" if case == 2 else b"/pieces"
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
                    connection.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
                slow.append(connection)
            time.sleep(0.5)
            held = sum(core["in_request"] for worker in server.stats()["workers"] for core in worker["cores"])
            latencies = []
            for _ in range(5):
                begun = time.monotonic()
                try:
                    with contextlib.closing(server.connect(2)) as connection:
                        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                        connection.recv(1)
                    latencies.append(1000 * (time.monotonic() - begun))
                except socket.timeout:
                    latencies.append(float("inf"))
                    break
            for connection in slow:
                connection.close()
            return {"held": held, "latency": statistics.median(latencies), "memory": server.memory()}

    found = dict(zip(settings, bench.rounds(settings, measure)))
    rows = []
    for case, name in enumerate(cases):
        for kind in ("http-socket", "http"):
            each = found[case, kind]
            latency = "waits" if each["latency"] == float("inf") else each["latency"]
            rows.append([f"{name}, `{kind}`", int(each["held"]), latency, each["memory"]])
    return table(["clients and socket", "threads held, of 2", "ordinary page, ms", "memory, MB"], rows)


def buffering(bench: Bench) -> str:
    """Uploads at once, and where their bodies wait."""
    settings = [4096, 1 << 20, 64 << 20]
    uploads = 8 if bench.extent.rounds > 1 else 2

    def measure(limit: int) -> dict[str, float]:
        with bench.server("--threads", 2, "--post-buffering", limit) as server:
            before = server.memory()
            connections = []
            for _ in range(uploads):
                connection = server.connect()
                connection.sendall(b"POST /size HTTP/1.1\r\nHost: x\r\nContent-Length: 10485760\r\n\r\n" + b"x" * (8 << 20))
                connections.append(connection)
            time.sleep(0.5)
            document = server.stats()
            grown = server.memory() - before
            for connection in connections:
                connection.sendall(b"x" * (2 << 20))
                if b" 200 " not in connection.recv(20):
                    fail("an upload was refused")
                connection.close()
            return {"memory": max(grown, 0.0), "files": document["temp_files"]["bytes"] / (1 << 20)}

    found = bench.rounds(settings, measure)
    rows = [[f"`post-buffering = {limit}`", each["memory"], each["files"]] for limit, each in zip(settings, found)]
    return table(["setting", "memory, MB more", "temporary files, MB"], rows)


def cheaper(bench: Bench) -> str:
    two = ("--cheaper", 2)
    settings = [("http", ()), ("http", two), ("http", (*two, "--cheaper-step", 2)),
                ("http", (*two, "--cheaper-algo", "busyness")), ("http-socket", two)]  # fmt: skip
    names = ["no `cheaper`, `http`", "`cheaper = 2`, `http`", "… `cheaper-step = 2`", "… `cheaper-algo = busyness`",
             "`cheaper = 2`, `http-socket`"]  # fmt: skip
    seconds = 8 if bench.extent.rounds > 1 else 1

    def measure(setting: tuple[str, tuple[object, ...]]) -> dict[str, float]:
        kind, options = setting
        with bench.server("--processes", 8, *options, kind=kind, application=DJANGO_WAITS) as server:
            until(lambda: server.running() == (2 if options else 8), "the workers run")
            idle, least = server.memory(), server.running()
            latencies = [1000 * latency for latency in load(server, "/wait", 8, seconds=seconds)[0]]
            return {"least": least, "idle": idle, "most": server.running(), "busy": server.memory(),
                    "median": percentile(latencies, 50), "p99": percentile(latencies, 99)}  # fmt: skip

    found = bench.rounds(settings, measure)
    rows = [[name, int(each["least"]), each["idle"], int(each["most"]), each["busy"], each["median"], each["p99"]] for name, each in zip(names, found)]
    return table(["setting", "workers, idle", "memory, MB", f"workers after {seconds} s", "memory, MB", "median, ms", "99 %, ms"], rows)


DJANGO_WAITS = ("--pythonpath", ROOT / "examples" / "django", "--pythonpath", ROOT / "bench" / "apps", "--module", "django_waits:application")


def memory(bench: Bench) -> str:
    settings = [(1, 2, ()), (4, 2, ()), (8, 2, ()), (4, 2, ("--lazy-apps",)), (8, 2, ("--lazy-apps",)), (1, 32, ())]

    def measure(setting: tuple[int, int, tuple[object, ...]]) -> dict[str, float]:
        processes, threads, options = setting
        with bench.server("--processes", processes, "--threads", threads, *options, application=DJANGO) as server:
            until(lambda: sum(worker["accepting"] for worker in server.stats()["workers"]) == processes, "all workers run")
            load(server, "/", 16, 4)
            return {"memory": server.memory()}

    found = bench.rounds(settings, measure)
    first = found[0]["memory"]
    rows = []
    for (processes, threads, options), each in zip(settings, found):
        name = f"{processes} × {threads}" + (", `lazy-apps`" if options else "")
        more = (each["memory"] - first) / (processes - 1) if processes > 1 else None
        rows.append([name, each["memory"], more if more is not None else ""])
    return table(["processes × threads", "all processes, MB", "each further worker, MB"], rows)


TABLES: dict[str, Callable[[Bench], str]] = {
    "waiting": waiting, "computing": computing, "backlog": backlog, "slow-clients": slow_clients, "buffering": buffering, "cheaper": cheaper,
    "memory": memory,
}  # fmt: skip


def conditions(program: str, rounds: int) -> str:
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    load_average = os.getloadavg()[0]
    return (
        f"Measured by `bench/tuning.py` with rwsgi {version}, Python {platform.python_version()}, Linux {platform.release()}, on {os.cpu_count()} "
        f"processors that did other work at the same time (load average {load_average:.0f}). Medians of {rounds} rounds. In each round the "
        "settings took turns. "
        + (f"Servers and clients had the nice value {PRIORITY}.\n" if PRIORITY else "\n")
    )


def put(page: str, name: str, text: str) -> str:
    """The page with a table between its marks."""
    pattern = rf"(<!-- {name}: made by bench/tuning.py -->\n).*?(<!-- end of {name} -->)"
    if not re.search(pattern, page, re.DOTALL):
        fail(f"docs/tuning.md has no place for {name}")
    return re.sub(pattern, lambda found: found[1] + text + found[2], page, flags=re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rwsgi", default=str(Path(sys.executable).parent / "rwsgi"))
    parser.add_argument("--rounds", type=int, default=WHOLE.rounds)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/tuning.md")
    parser.add_argument("--smoke", action="store_true", help="one short round of each")
    parser.add_argument("--only", action="append", choices=list(TABLES), help="measure this table alone; may be repeated")
    arguments = parser.parse_args()
    extent = SMOKE if arguments.smoke else Extent(arguments.rounds, WHOLE.clients, WHOLE.seconds)
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
    raise_priority(os.getpid())
    bench = Bench(os.path.abspath(arguments.rwsgi), extent)
    for name in arguments.only or TABLES:
        text = TABLES[name](bench)
        print(f"\n{name}\n\n{text}", flush=True)
        if arguments.write:
            PAGE.write_text(put(PAGE.read_text(), name, text))
    about = conditions(arguments.rwsgi, extent.rounds)
    print(about)
    if arguments.write:
        PAGE.write_text(put(PAGE.read_text(), "conditions", about))


if __name__ == "__main__":
    main()
