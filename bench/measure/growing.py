"""What is measured at several sizes: each function measures one dimension, and gives it to a recorder.

A size's rounds follow each other. Where a server is started for each round, starts are among what is measured.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator

from fleet import started
from scale import ask, free_port, get, processor_seconds, running, until

from measure.growth import Cost
from measure.holders import Holders, most
from measure.processes import family, memory
from measure.spooler import fill

APP = (
    "import time\n"
    "def application(environ, start_response):\n"
    "    if environ['PATH_INFO'] == '/wait': time.sleep(0.05)\n"
    "    start_response('200 OK', [('Content-Length', '5')])\n    return [b'hello']\n"
)


@dataclass
class Bench:
    """What is measured, where files go, and how thoroughly."""

    rwsgi: str
    rtop: str | None
    room: Path
    # Whether only a look at the script itself is wanted.
    smoke: bool
    costs: list[Cost]
    say: Callable[[str], None]

    @property
    def rounds(self) -> int:
        return 1 if self.smoke else 3

    @property
    def seconds(self) -> float:
        """Of watching something idle."""
        return 0.5 if self.smoke else 3

    def sizes(self, largest: int) -> list[int]:
        """Up to so many, each twice the one before."""
        return [largest // 64, largest // 32] if self.smoke else [largest // 2**power for power in (4, 3, 2, 1, 0)]

    def costs_of(self, dimension: str, size: str, names: dict[str, str]) -> dict[str, Cost]:
        """Costs that are about to be measured, by name and unit."""
        made = {name: Cost(dimension, name, unit, size) for name, unit in names.items()}
        self.costs += made.values()
        return made

    @contextlib.contextmanager
    def server(self, *options: object) -> Iterator[tuple[subprocess.Popen, int]]:
        """A server with a stats socket that speaks HTTP, and that socket's port."""
        (self.room / "app.py").write_text(APP)
        stats = free_port()
        command = [self.rwsgi, *options, "--stats", f"127.0.0.1:{stats}", "--stats-http", "--disable-logging"]
        with running(command, self.room / "server.log") as server:
            yield server, stats

    def serves(self, server: subprocess.Popen, stats: int, workers: int, generation: int = 1) -> None:
        """Waits until so many workers of the generation accept. A poll of a thousand is work: not too often."""

        def all_serve() -> bool:
            if server.poll() is not None:
                sys.exit(f"bench/growth.py: the server has left\n{(self.room / 'server.log').read_text()}")
            found = json.loads(ask(stats, "/") or b"{}").get("workers", [])
            serving = [one for one in found if one["status"] != "cheap" and one["accepting"] and one["generation"] == generation]
            return len(serving) == workers or bool(time.sleep(workers / 2_000))

        until(all_serve, f"{workers} workers serve", 240)


def idle_milliseconds(pids: list[int], seconds: float) -> float:
    """Processor time of some processes in a second, ms."""
    before, began = sum(map(processor_seconds, pids)), time.monotonic()
    time.sleep(seconds)
    return (sum(map(processor_seconds, pids)) - before) / (time.monotonic() - began) * 1e3


def of_requests(pids: list[int], port: int, path: str, count: int) -> tuple[float, float]:
    """Processor time of some processes for a request on one connection, and how long it takes, µs."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    get(connection, path)
    before, took = sum(map(processor_seconds, pids)), []
    for _ in range(count):
        began = time.perf_counter()
        get(connection, path)
        took.append(time.perf_counter() - began)
    spent = sum(map(processor_seconds, pids)) - before
    connection.close()
    return spent / count * 1e6, sorted(took)[count // 2] * 1e6


def connections(bench: Bench, option: str, largest: int, workers: int) -> None:
    """Idle connections, each answered once: what they take, and what a request beside them costs."""
    costs = bench.costs_of(f"Idle connections, {option}, {workers} worker{'s' * (workers > 1)}", "connections", {
        "memory of the server for all": "MB",
        "idle server in a second, sweeps too": "ms",
        "a request beside them, processor": "µs",
        "a request beside them, p50": "µs",
    })  # fmt: skip
    port = free_port()
    places = [part for number in range(1, 10) for part in (option, f"127.0.0.{number}:{port}")]
    keep = ["--http-keepalive=3600", "--socket-timeout=3600", "--http-timeout=3600", "--listen=4096"]
    holders = Holders(port)
    with bench.server(*places, *keep, "--wsgi-file", "app.py", "--processes", workers, "--threads", 1) as (server, stats):
        bench.serves(server, stats, workers)
        pids = [stat.pid for stat in family(server.pid)]
        # What is made at the first requests is nobody's.
        holders.hold(100)
        before = memory(server.pid)
        try:
            for size in bench.sizes(largest):
                holders.hold(size)
                bench.say(f"{size:,} connections")
                for _ in range(bench.rounds):
                    measured = (memory(server.pid) - before) / 1e6, idle_milliseconds(pids, bench.seconds)
                    for cost, value in zip(costs.values(), [*measured, *of_requests(pids, port, "/", 1_000)]):
                        cost.add(size, value)
        finally:
            holders.stop()


def workers(bench: Bench) -> None:
    """Workers of one thread, none of which has anything to do."""
    costs = bench.costs_of("Workers of 1 thread, --http", "workers", {
        "start until all serve": "s", "memory of all processes": "MB", "master: start": "ms",
        "master: idle for a second, harakiri = 1": "ms", "master: a poll of the stats": "µs",
        "master: a scrape of /metrics": "µs", "master: a reload": "ms", "reload until all serve": "s",
        "http router: a request": "µs", "rtop: a second on a screen": "ms",
    })  # fmt: skip
    if bench.rtop is None:
        bench.costs.remove(costs.pop("rtop: a second on a screen"))
    for size in bench.sizes(1_024):
        bench.say(f"{size:,} workers")
        for _ in range(1 if bench.smoke else 2):
            for name, value in _of_workers(bench, size).items():
                if name in costs:
                    costs[name].add(size, value)


def _of_workers(bench: Bench, count: int) -> dict[str, float]:
    port = free_port()
    options = ["--http", f"127.0.0.1:{port}", "--wsgi-file", "app.py", "--processes", count, "--threads", 1, "--harakiri", 1]
    began = time.monotonic()
    with bench.server(*options) as (server, stats):
        bench.serves(server, stats, count)
        found = {"start until all serve": time.monotonic() - began, "master: start": processor_seconds(server.pid) * 1e3}
        found["memory of all processes"] = memory(server.pid) / 1e6
        found["master: idle for a second, harakiri = 1"] = idle_milliseconds([server.pid], bench.seconds)
        found["master: a poll of the stats"] = of_requests([server.pid], stats, "/", 20)[0]
        found["master: a scrape of /metrics"] = of_requests([server.pid], stats, "/metrics", 20)[0]
        router = int(re.search(r"http router started \(pid (\d+)\)", (bench.room / "server.log").read_text())[1])  # type: ignore[index]
        found["http router: a request"] = of_requests([router], port, "/", 2_000)[0]
        if bench.rtop is not None:
            rtop, terminal = started([bench.rtop, f"http://127.0.0.1:{stats}"], screen=True)
            time.sleep(2)
            found["rtop: a second on a screen"] = idle_milliseconds([rtop.pid], bench.seconds)
            rtop.terminate()
            rtop.wait()
            os.close(terminal)
        began, before = time.monotonic(), processor_seconds(server.pid)
        server.send_signal(signal.SIGHUP)
        bench.serves(server, stats, count, generation=2)
        found["reload until all serve"] = time.monotonic() - began
        found["master: a reload"] = (processor_seconds(server.pid) - before) * 1e3
    return found


def threads(bench: Bench) -> None:
    """Threads of one process, all of which wait 50 ms in the application."""
    costs = bench.costs_of("Busy threads of 1 process, --http-socket", "threads", {
        "worker: a request": "µs", "master: a second": "ms", "master: a poll of the stats": "µs",
    })  # fmt: skip
    for size in bench.sizes(256):
        bench.say(f"{size} threads")
        port = free_port()
        options = ["--http-socket", f"127.0.0.1:{port}", "--wsgi-file", "app.py", "--threads", size, "--harakiri", 1]
        with bench.server(*options) as (server, stats):
            bench.serves(server, stats, 1)
            worker = json.loads(ask(stats, "/") or b"{}")["workers"][0]["pid"]
            for _ in range(bench.rounds):
                wrk = ["wrk", "-t1", f"-c{size}", f"-d{bench.seconds + 2:.0f}s", f"http://127.0.0.1:{port}/wait"]
                before = processor_seconds(worker)
                load = subprocess.Popen(wrk, stdout=subprocess.PIPE, text=True)
                time.sleep(1)
                costs["master: a second"].add(size, idle_milliseconds([server.pid], bench.seconds / 2))
                costs["master: a poll of the stats"].add(size, of_requests([server.pid], stats, "/", 10)[0])
                said = load.communicate()[0]
                served = int(re.search(r"(\d+) requests in", said)[1])  # type: ignore[index]
                costs["worker: a request"].add(size, (processor_seconds(worker) - before) / served * 1e6)


# Rules with which a server is started, at most.
STARTED_WITH = 10_000
# What a line of each kind is. The last rule is the one that a request of `/` asks for.
KINDS: dict[str, Callable[[int], str]] = {
    "route": lambda number: f"route = ^/place{number}/ return:404",
    "static-map": lambda number: f"static-map = /place{number}=/nowhere",
    "mount": lambda number: f"mount = /place{number}=app.py",
    "env": lambda number: f"env = NAME{number}=value",
    "log-route": lambda number: f"logger = name{number} file:/dev/null\nlog-route = name{number} ^place{number}$",
}


def options(bench: Bench) -> None:
    """Lines of a configuration: what reading them takes, and what a request pays for rules."""
    names = {**{f"--check, {kind}": "ms" for kind in KINDS}, "start with route": "ms", "a request with route": "µs"}
    costs = bench.costs_of("Lines of a configuration", "lines", names)
    for size in bench.sizes(10_000):
        bench.say(f"{size:,} lines")
        for kind, line in KINDS.items():
            port = free_port()
            own = ["[uwsgi]", f"http-socket = 127.0.0.1:{port}", "wsgi-file = app.py", *map(line, range(size))]
            (bench.room / f"{kind}.ini").write_text("\n".join(own) + "\n")
            (bench.room / "app.py").write_text(APP)
            for _ in range(bench.rounds):
                before = os.times()
                subprocess.run([bench.rwsgi, "--check", f"{kind}.ini"], cwd=bench.room, check=True, stdout=subprocess.DEVNULL)
                after = os.times()
                spent = after.children_user + after.children_system - before.children_user - before.children_system
                costs[f"--check, {kind}"].add(size, spent * 1e3)
            if kind != "route" or size > STARTED_WITH:
                continue
            for _ in range(bench.rounds):
                began = time.monotonic()
                with bench.server(f"{kind}.ini") as (server, _stats):
                    until(lambda: ask(port, "/"), "it serves")
                    costs["start with route"].add(size, (time.monotonic() - began) * 1e3)
                    pids = [stat.pid for stat in family(server.pid)]
                    costs["a request with route"].add(size, of_requests(pids, port, "/", 200)[0])


def vassals(bench: Bench) -> None:
    """Files of an emperor; a vassal is a program that sleeps, which asks nothing of the machine."""
    costs = bench.costs_of("Vassals, emperor-freq = 1", "vassals", {
        "emperor: start": "ms", "emperor: idle for a second, with a scan": "ms",
    })  # fmt: skip
    wrapper = bench.room / "sleeps"
    wrapper.write_text("#!/bin/sh\nexec sleep 3600\n")
    wrapper.chmod(0o755)
    for size in bench.sizes(1_024):
        bench.say(f"{size:,} vassals")
        place = bench.room / "vassals"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        for number in range(size):
            (place / f"vassal{number:05}.ini").write_text("[uwsgi]\n")
        log = bench.room / "emperor.log"
        command = [bench.rwsgi, "--emperor", place, "--emperor-wrapper", wrapper, "--emperor-freq", 1, "--reload-mercy", 1]
        with running(command, log) as emperor:
            until(lambda: log.read_text().count("started (pid") == size or bool(time.sleep(0.2)), "all vassals are started", 240)
            costs["emperor: start"].add(size, processor_seconds(emperor.pid) * 1e3)
            time.sleep(1)
            for _ in range(bench.rounds):
                value = idle_milliseconds([emperor.pid], 2 * bench.seconds)
                costs["emperor: idle for a second, with a scan"].add(size, value)
            # A vassal that sleeps hears nothing: the second signal kills.
            emperor.terminate()
            until(lambda: "stopping" in log.read_text(), "it stops")


def jobs(bench: Bench) -> None:
    """Jobs of tomorrow in a spooler's directory."""
    costs = bench.costs_of("Jobs that wait in a spooler", "jobs", {
        "spooler: the first look": "ms", "all processes: idle for a second, spooler-frequency = 1": "ms",
        "all processes: a poll of the stats": "µs",
    })  # fmt: skip
    for size in bench.sizes(100_000):
        bench.say(f"{size:,} jobs")
        place = bench.room / "jobs"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        fill(place, size)
        port = free_port()
        options = ["--http-socket", f"127.0.0.1:{port}", "--wsgi-file", "app.py", "--spooler", place, "--spooler-frequency", 1]
        with bench.server(*options) as (server, stats):
            bench.serves(server, stats, 1)
            spooler = until(lambda: json.loads(ask(stats, "/") or b"{}")["spoolers"][0]["pid"], "the spooler runs")
            time.sleep(1.5)
            costs["spooler: the first look"].add(size, processor_seconds(int(str(spooler))) * 1e3)
            pids = [stat.pid for stat in family(server.pid)]
            for _ in range(bench.rounds):
                value = idle_milliseconds(pids, 2 * bench.seconds)
                costs["all processes: idle for a second, spooler-frequency = 1"].add(size, value)
                costs["all processes: a poll of the stats"].add(size, of_requests(pids, stats, "/", 10)[0])


def _direct(bench: Bench) -> None:
    # The workers of one server share them, as far as each may have descriptors.
    connections(bench, "--http-socket", min(100_000, 8 * most() * 3 // 4), 8)


def _routed(bench: Bench) -> None:
    connections(bench, "--http", min(100_000, most() * 3 // 4), 1)


DIMENSIONS: dict[str, Callable[[Bench], None]] = {
    "connections": _direct,
    "connections-http": _routed,
    "workers": workers,
    "threads": threads,
    "options": options,
    "vassals": vassals,
    "jobs": jobs,
}
