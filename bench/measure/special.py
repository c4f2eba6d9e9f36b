"""Measurements that are no plain load: starts, reloads, idle connections, polls, memory, and nginx in front.

Each gives rows for a table; their units are in their titles.
"""

from __future__ import annotations

import re
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Callable, Iterator

from rig import http, stats
from rig.addresses import connect, listening, tcp
from rig.nginx import Nginx

from measure.goals import COST, FRONT, POLL, SOCKET
from measure.load import errors_of, parse, wrk_command
from measure.processes import memory, parse_stat, processor_time, spent
from measure.servers import Failed, Place, Running, Server, Setting, start
from measure.spooler import spooler

Row = dict[str, "float | str"]
# Seconds of load with reloads: several, of an application that takes 2 s to import.
RELOADING = 10


class Stage:
    """Which servers there are, how long a load lasts (s), and who hears of progress."""

    def __init__(self, place: Place, servers: list[Server], seconds: int, say: Callable[[str], None]) -> None:
        self.place, self.servers, self.seconds, self.say = place, servers, seconds, say

    def each(self, names: list[str], setting: Setting) -> Iterator[Running]:
        """Runs those of the named servers that there are, one after another."""
        for server in self.servers:
            if server.name in names and server.can(setting):
                try:
                    running = start(server, self.place, setting)
                except Failed as failure:
                    self.say(str(failure))
                    continue
                try:
                    yield running
                finally:
                    running.stop()

    def load(self, running: Running, connections: int, close: bool = False, seconds: int = 0) -> dict[str, int]:
        """A load by wrk, as long as the others unless told otherwise."""
        seconds = seconds or self.seconds
        command = wrk_command(running.address, "/", connections, seconds, close, 0, 1)
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60)
        return parse(done.stdout + done.stderr)


def starts(stage: Stage) -> list[Row]:
    """Time from exec to the first answer, of hello; and how far the rounds lie apart."""
    rows: list[Row] = []
    for server in stage.servers:
        if not server.runs_python:
            continue
        took = []
        for _ in range(5):
            running = start(server, stage.place, Setting())
            took.append(running.started_in * 1e3)
            running.stop()
        rows.append({
            "server": server.name, "median, ms": round(statistics.median(took)), "least, ms": round(min(took)),
            "most, ms": round(max(took)),
        })  # fmt: skip
    return rows


def django_memory(stage: Stage) -> list[Row]:
    """PSS of four workers that have all served Django."""
    rows: list[Row] = []
    setting = Setting("django_page", processes=4)
    names = [SOCKET, FRONT, "uwsgi --http-socket", "uwsgi --http", "gunicorn", "granian", "bjoern", "fastwsgi"]
    for running in stage.each(names, setting):
        # Long enough that every worker has served, and its collector has run.
        stage.load(running, 16, close=True, seconds=max(stage.seconds, 4))
        rows.append({"server": running.server.name, "PSS, MB": round(memory(running.pid) / 1e6, 1)})
    return rows


def idle(stage: Stage, count: int = 10_000) -> list[Row]:
    """Memory of connections that were answered once and stay, and whether they are served on."""
    rows: list[Row] = []
    setting = Setting(connections=count, options=("--http-keepalive=300",))
    for running in stage.each([SOCKET, FRONT, "granian", "bjoern", "fastwsgi"], setting):
        open_ones: list[http.Connection] = []
        try:
            # The first ones fill what is kept for all: they count for nobody.
            for _ in range(100):
                running.check("/", None, 12)
            before = memory(running.pid)
            for _ in range(count):
                connection = http.Connection(running.address, timeout=10)
                open_ones.append(connection)
                if not _answered(connection):
                    # Its limit is reached: those that are there can still be looked at.
                    connection.close()
                    open_ones.pop()
                    break
            after = memory(running.pid)
            served = sum(_answered(connection) for connection in open_ones)
        except OSError as failure:
            stage.say(f"{running.server.name}: {len(open_ones)} connections, then {failure}")
            continue
        finally:
            for connection in open_ones:
                connection.close()
        rows.append({
            "server": running.server.name, "wanted": count, "connections": len(open_ones),
            "bytes each": round((after - before) / max(1, len(open_ones))), "served on": served,
        })  # fmt: skip
    return rows


def _answered(connection: http.Connection) -> bool:
    try:
        return connection.request("GET", "/").status == 200
    except (OSError, AssertionError):
        return False


def reloads(stage: Stage) -> list[Row]:
    """The same load with and without a SIGHUP each second. Through the front connections stay; on the workers' own
    socket each request has one, for a worker that goes closes those that it has."""
    rows: list[Row] = []
    for running in stage.each([SOCKET, FRONT], Setting("slow_import", processes=2, threads=2)):
        close = running.server.name == SOCKET
        calm = stage.load(running, 8, close, RELOADING)
        before = stats.read(running.stats)["generation"]
        stop = threading.Event()

        def hang_up() -> None:
            while not stop.wait(1):
                running.process.send_signal(signal.SIGHUP)

        reloading = threading.Thread(target=hang_up)
        reloading.start()
        loaded = stage.load(running, 8, close, RELOADING)
        stop.set()
        reloading.join()
        rows.append({
            "server": running.server.name, "requests": loaded["requests"], "errors": errors_of(calm) + errors_of(loaded),
            "longest, ms": round(calm["p100"] / 1e3, 1), "longest reloading, ms": round(loaded["p100"] / 1e3, 1),
            "reloads": stats.read(running.stats)["generation"] - before,
        })  # fmt: skip
    return rows


# Polls a second under load: ten times as many as are asked about, since what ten cost is lost in a load's own spread.
POLLS_UNDER_LOAD = 100


def polls(stage: Stage) -> list[Row]:
    """What a poll costs the master, and what ten a second cost hello on all of 64 workers of 2 threads."""
    rows: list[Row] = []
    for running in stage.each([SOCKET], Setting(processes=64, threads=2)):

        def master() -> float:
            return processor_time(parse_stat(Path(f"/proc/{running.pid}/stat").read_text()))

        def poll(count: int, pause: float) -> None:
            for _ in range(count):
                with connect(running.stats) as connection:
                    # Not parsed: the client's work is not what is measured.
                    while connection.recv(1 << 20):
                        pass
                time.sleep(pause)

        poll(5, 0.1)
        begun, before = time.monotonic(), master()
        poll(30, 0.1)
        took, busy = time.monotonic() - begun, master() - before
        before = master()
        time.sleep(took)
        a_poll = (busy - (master() - before)) / 30

        stage.load(running, 64)
        with_polls, without = [], []
        # Many short loads, in an order that drifts cancel in.
        for polled in [True, False, False, True] * 6:
            stop = threading.Event()
            poller = threading.Thread(target=lambda: [poll(1, 1 / POLLS_UNDER_LOAD) for _ in iter(stop.is_set, True)])
            before = spent(running.pid)
            if polled:
                poller.start()
            result = stage.load(running, 64, seconds=2)
            stop.set()
            if polled:
                poller.join()
            (with_polls if polled else without).append((spent(running.pid) - before) / result["requests"])
        cost = (statistics.median(with_polls) / statistics.median(without) - 1) * 10 / POLLS_UNDER_LOAD
        rows.append({"server": "rwsgi, 64 workers of 2 threads", POLL: round(a_poll * 1e6), COST: round(cost * 100, 2)})
    return rows


def behind_nginx(stage: Stage) -> list[Row]:
    """Django behind nginx with ab: rwsgi as it comes, uWSGI with the backlog that it needs."""

    def command(program: Callable[[Place], list[str]], *more: str) -> Callable[[Place, Setting, str], list[str]]:
        return lambda place, setting, address: [
            *(*program(place), "--home", str(place.venv), "--socket", address, "--module", setting.module, "--master"),
            *("--processes", "4", "--threads", "2", "--disable-logging", *more),
        ]

    servers = [
        Server("rwsgi", command(lambda place: [str(place.rwsgi)])),
        Server("uwsgi", command(lambda place: [place.program("uwsgi")], "--listen", "4096", "--die-on-term"), "uWSGI"),
    ]
    rows: list[Row] = []
    packages = {server.package for server in stage.servers}
    for server in servers:
        for way, example in {"unix": "/run/rwsgi/app.sock", "TCP": "127.0.0.1:3031"}.items():
            if server.package not in packages:
                continue
            with tempfile.TemporaryDirectory() as directory:
                address = f"{directory}/app.sock" if way == "unix" else tcp()
                running = start(server, stage.place, Setting("django_page"), address, listening)
                nginx = Nginx(Path(directory), {f"uwsgi-{way.lower()}": (example, address)})
                try:
                    front = next(iter(nginx.addresses.values()))
                    ab = ["ab", "-q", "-s", "120", "-n", "10000", "-c", "1000", f"http://{front}/"]
                    done = subprocess.run(ab, capture_output=True, text=True, timeout=300)
                finally:
                    nginx.stop()
                    running.stop()
            rows.append({"server": server.name, "way": way, **parse_ab(done.stdout)})
    return rows


def parse_ab(output: str) -> Row:
    """What ab tells: failures of any kind, requests a second, the longest request."""

    def number(pattern: str) -> float:
        found = re.search(pattern, output)
        return float(found[1]) if found else 0.0

    if "Complete requests" not in output:
        raise Failed(f"ab told nothing:\n{output[-1500:]}")
    missing = 10_000 - number(r"Complete requests:\s+(\d+)")
    failed = missing + number(r"Failed requests:\s+(\d+)") + number(r"Non-2xx responses:\s+(\d+)")
    return {
        "failed": int(failed),
        "requests/s": round(number(r"Requests per second:\s+([\d.]+)")),
        "p50, ms": int(number(r"\n\s+50%\s+(\d+)")),
        "p99, ms": int(number(r"\n\s+99%\s+(\d+)")),
        "longest, ms": int(number(r"\n\s+100%\s+(\d+)")),
    }


SPECIAL: dict[str, Callable[[Stage], list[Row]]] = {
    "start": starts,
    "reload": reloads,
    "idle": idle,
    "polls": polls,
    "django-memory": django_memory,
    "nginx": behind_nginx,
    "spooler": spooler,
}
