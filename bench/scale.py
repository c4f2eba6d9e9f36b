#!/usr/bin/env python3
"""What watching a fleet costs: series, bytes and processor time of scrapes and polls, and what Prometheus needs for them.

    bench/scale.py [--rwsgi PROGRAM] [--prometheus PROGRAM] [--out FILE] [--smoke]

Starts servers of 1 to 256 workers, scrapes each in each format, and reads the master's processor time from the kernel. Then has a
real Prometheus scrape many targets that answer as such a server would. From both it computes the tables of docs/scale.md for 10,
1,000 and 100,000 workers, and prints them. Needs rwsgi in the environment of this Python, and Debian's package `prometheus`.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Iterator

ROOT = Path(__file__).resolve().parent.parent
THREADS = 2
FORMATS = {
    "text": "text/plain",
    "OpenMetrics": "application/openmetrics-text; version=1.0.0",
    "protobuf": "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
}
APP = "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'hello']\n"
# With durations as those of an application, so that its histograms have as many buckets.
SLOW_APP = (
    "import random, time\n"
    "def application(environ, start_response):\n    time.sleep(min(random.expovariate(200), 0.1))\n"
    "    start_response('200 OK', [])\n    return [b'hello']\n"
)
# A server may hold 200 routes.
ROUTES = 200


@dataclass(frozen=True)
class Scrape:
    """One scrape: `microseconds` of the master's processor time, `series` as Prometheus counts them."""

    series: int
    bytes: int
    microseconds: float


@dataclass(frozen=True)
class Measured:
    """One server."""

    workers: int
    routes: int
    master_bytes: int
    scrapes: dict[str, Scrape]
    poll: Scrape


@dataclass(frozen=True)
class Ingestion:
    """A Prometheus that scrapes: what a series takes of its memory, a sample of its processor and of its disk."""

    format: str
    targets: int
    series: int
    heap: int
    resident: int
    microseconds_per_sample: float
    bytes_per_sample: float


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def processor_seconds(pid: int) -> float:
    """User and system time of a process, of threads that have ended too, where /proc/PID/stat counts ticks of 10 ms."""
    # The clock of another process, as clock_getcpuclockid(3) makes it.
    return time.clock_gettime((~pid << 3) | 2)


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def until(condition, what: str, seconds: float = 120) -> object:
    end = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > end:
            sys.exit(f"bench/scale.py: after {seconds:g} s still not: {what}")
        time.sleep(0.05)
    return result


def get(connection: http.client.HTTPConnection, path: str, accept: str = "*/*") -> bytes:
    connection.request("GET", path, headers={"Accept": accept})
    response = connection.getresponse()
    body = response.read()
    if response.status != 200:
        sys.exit(f"bench/scale.py: {path} answers {response.status}")
    return body


def ask(port: int, path: str) -> bytes | None:
    """What is there, or nothing."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", path)
        return connection.getresponse().read()
    return None


@contextlib.contextmanager
def running(command: list[object], log: Path) -> Iterator[subprocess.Popen]:
    with log.open("wb") as output:
        arguments = [str(part) for part in command]
        program = subprocess.Popen(arguments, stdout=output, stderr=output, start_new_session=True, cwd=log.parent)
    try:
        yield program
    finally:
        program.terminate()
        try:
            program.wait(60)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()


# --- Scrapes and polls


def count_series(body: bytes, format: str) -> int:
    """How many series a scrape has: lines that are no comments, or messages, since a native histogram is one series."""
    if format != "protobuf":
        return sum(1 for line in body.splitlines() if line and not line.startswith(b"#"))
    return sum(1 for _, family in messages(body) for field, _ in fields(family) if field == 4)


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Messages that each have their length before them."""
    at = 0
    while at < len(data):
        length, at = varint(data, at)
        yield at, data[at : at + length]
        at += length


def fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a message, those that have a length with their bytes."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        kind, content = key & 7, b""
        if kind == 0:
            _, at = varint(data, at)
        elif kind == 2:
            length, at = varint(data, at)
            content, at = data[at : at + length], at + length
        else:
            at += {1: 8, 5: 4}[kind]
        yield key >> 3, content


def letters(number: int) -> str:
    """A name without digits, which a route would leave out."""
    return "".join(chr(ord("a") + int(digit)) for digit in f"{number:03}")


def measure_server(program: str, workers: int, routes: int, rounds: int, directory: Path) -> Measured:
    """Starts a server, has it serve requests of so many routes, and scrapes it."""
    web, stats = free_port(), free_port()
    (directory / "app.py").write_text(APP)
    command = [
        program, "--http", f"127.0.0.1:{web}", "--wsgi-file", "app.py", "--processes", workers, "--threads", THREADS,
        "--stats", f"127.0.0.1:{stats}", "--stats-http", "--disable-logging",
    ]  # fmt: skip
    with running(command, directory / "server.log") as server:

        def serves() -> bool:
            if server.poll() is not None:
                sys.exit(f"bench/scale.py: the server has left\n{(directory / 'server.log').read_text()}")
            document = json.loads(ask(stats, "/") or b"{}")
            serving = [worker for worker in document.get("workers", []) if worker["status"] != "cheap" and worker["accepting"]]
            return len(serving) == workers

        until(serves, f"{workers} workers serve")
        client = http.client.HTTPConnection("127.0.0.1", web, timeout=30)
        for number in range(routes * 5):
            get(client, f"/{letters(number % routes)}")
            # The server gives rows when it is looked at.
            if number % 50 == 0:
                ask(stats, "/")
        client.close()

        connection = http.client.HTTPConnection("127.0.0.1", stats, timeout=30)

        def cost(path: str, accept: str) -> tuple[bytes, float]:
            for _ in range(3):
                body = get(connection, path, accept)
            before = processor_seconds(server.pid)
            for _ in range(rounds):
                body = get(connection, path, accept)
            return body, (processor_seconds(server.pid) - before) / rounds * 1e6

        # As many as have a row: the others are counted as `(other)`.
        rows = (ask(stats, "/metrics") or b"").count(b"\nrwsgi_route_requests_total{")
        scrapes = {}
        for format, accept in FORMATS.items():
            body, spent = cost("/metrics", accept)
            scrapes[format] = Scrape(count_series(body, format), len(body), spent)
        body, spent = cost("/", "*/*")
        return Measured(workers, rows, resident_bytes(server.pid), scrapes, Scrape(0, len(body), spent))


def record_scrapes(program: str, workers: int, routes: int, scrapes: int, directory: Path) -> None:
    """Puts into `directory` what a server under load answers to so many scrapes, in both formats: `text0`, `protobuf0`, …"""
    web, stats = free_port(), free_port()
    (directory / "app.py").write_text(SLOW_APP)
    command = [
        program, "--http", f"127.0.0.1:{web}", "--wsgi-file", "app.py", "--processes", workers, "--threads", THREADS,
        "--stats", f"127.0.0.1:{stats}", "--stats-http", "--disable-logging",
    ]  # fmt: skip
    with running(command, directory / "server.log"):
        until(lambda: ask(web, "/"), "the server serves")
        client = http.client.HTTPConnection("127.0.0.1", web, timeout=30)
        scraper = http.client.HTTPConnection("127.0.0.1", stats, timeout=30)
        for number in range(routes):
            get(client, f"/{letters(number)}")
        for number in range(scrapes):
            for _ in range(20):
                get(client, f"/{letters(random.randrange(routes))}")
            for format in ("text", "protobuf"):
                (directory / f"{format}{number}").write_bytes(get(scraper, "/metrics", FORMATS[format]))


# --- Prometheus

# Answers as a fleet of servers would, all with the same numbers. A process of its own, so that what it costs is not counted.
FLEET = '''
import http.server, pathlib, sys, time
directory, format, content_type, interval, port = sys.argv[1:]
files = sorted(pathlib.Path(directory).glob(format + "*"), key=lambda file: int(file.name[len(format):]))
bodies = [file.read_bytes() for file in files]
began = time.monotonic()
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = bodies[min(int((time.monotonic() - began) / float(interval)), len(bodies) - 1)]
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()
'''


def numbers_of(port: int, *names: str) -> dict[str, float]:
    """Prometheus's own metrics, those without labels, and the sum of others."""
    found: dict[str, float] = {}
    for line in (ask(port, "/metrics") or b"").decode().splitlines():
        name, _, value = line.rpartition(" ")
        if (name := name.split("{")[0]) in names:
            found[name] = found.get(name, 0.0) + float(value)
    return found


def measure_prometheus(
    program: str, recorded: Path, format: str, targets: int, scrapes: int, interval: float, directory: Path
) -> Ingestion:
    """Has it scrape so many targets so many times."""
    fleet_port, port = free_port(), free_port()
    addresses = ", ".join(f"'server{number}'" for number in range(targets))
    (directory / "prometheus.yml").write_text(
        f"global: {{scrape_interval: {interval * 1000:.0f}ms, scrape_timeout: {interval * 1000:.0f}ms}}\n"
        f"scrape_configs:\n- job_name: app\n  static_configs: [{{targets: [{addresses}]}}]\n"
        "  relabel_configs:\n"
        "  - {source_labels: [__address__], target_label: instance}\n"
        f"  - {{target_label: __address__, replacement: '127.0.0.1:{fleet_port}'}}\n"
        "  - {source_labels: [instance], target_label: __param_server}\n"
    )
    command = [
        program, f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data", "--web.enable-admin-api",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=error", "--enable-feature=native-histograms",
    ]  # fmt: skip
    fleet = [sys.executable, "-c", FLEET, recorded, format, FORMATS[format], interval, fleet_port]
    appended = "prometheus_tsdb_head_samples_appended_total"
    with running(fleet, directory / "fleet.log"), running(command, directory / "prometheus.log") as prometheus:

        def samples() -> float:
            if prometheus.poll() is not None:
                sys.exit(f"bench/scale.py: prometheus has left\n{(directory / 'prometheus.log').read_text()}")
            return numbers_of(port, appended).get(appended, 0.0)

        lines = count_series((recorded / f"{format}0").read_bytes(), format) * targets
        # The first scrapes make the series. What later ones cost is what lasts.
        until(lambda: samples() >= 5 * lines, "five scrapes of all targets", 120 + 20 * interval)
        first, spent = samples(), processor_seconds(prometheus.pid)
        until(lambda: samples() >= scrapes * lines, "all scrapes", 120 + 4 * scrapes * interval)
        last, spent = samples(), processor_seconds(prometheus.pid) - spent
        # A collection first, so that what counts is in use.
        ask(port, "/debug/pprof/heap?gc=1")
        own = numbers_of(port, "go_memstats_heap_inuse_bytes", "prometheus_tsdb_head_series")
        resident = resident_bytes(prometheus.pid)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        connection.request("POST", "/api/v1/admin/tsdb/snapshot")
        name = json.loads(connection.getresponse().read())["data"]["name"]
        total = samples()
        block = sum(path.stat().st_size for path in (directory / "data" / "snapshots" / name).rglob("*") if path.is_file())
    return Ingestion(
        format, targets, int(own["prometheus_tsdb_head_series"]), int(own["go_memstats_heap_inuse_bytes"]), resident,
        spent / (last - first) * 1e6, block / total,
    )  # fmt: skip


# --- Tables


def line_through(points: list[tuple[float, float]]) -> tuple[float, float]:
    """Slope and intercept of the least squares."""
    count = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
    return slope, mean_y - slope * mean_x


def table(head: list[str], rows: list[list[str]]) -> str:
    ruler = [":---" if at == 0 else "---:" for at in range(len(head))]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ruler, *rows]) + "\n"


def si(value: float, unit: str = "B") -> str:
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}".rstrip()


def plural(count: int, what: str) -> str:
    return f"{count} {what}" + "s" * (count != 1)


def server_tables(servers: list[Measured]) -> str:
    rows = []
    for server in servers:
        of_server = f"{plural(server.workers, 'worker')}, {plural(server.routes, 'route')}"
        for format, scrape in server.scrapes.items():
            rows.append(
                [of_server, format, f"{scrape.series:,}", si(scrape.bytes),
                 f"{scrape.microseconds / 1e3:.2f}"]
            )  # fmt: skip
        poll = [si(server.poll.bytes), f"{server.poll.microseconds / 1e3:.2f}"]
        rows.append([of_server, "stats document (`/`)", "", *poll])
    return table(["server", "asked for", "series", "bytes", "CPU of the master, ms"], rows)


@dataclass(frozen=True)
class Model:
    """A quantity of one server: `fixed` + `worker` × workers + `route` × routes."""

    fixed: float
    worker: float
    route: float

    def of(self, workers: int, routes: int) -> float:
        return self.fixed + self.worker * workers + self.route * routes


# Beyond that a scrape takes more time than by its workers.
LINEAR = 64


def model(servers: list[Measured], quantity, most: int = 10_000) -> Model:
    """Fitted: the workers by those servers of `most` workers that have few routes, the routes by the difference to the server
    with many."""
    fewest = min(server.routes for server in servers)
    few = [server for server in servers if server.routes == fewest and server.workers <= most]
    worker, fixed = line_through([(server.workers, quantity(server)) for server in few])
    (many,) = [server for server in servers if server.routes > fewest]
    alike = next(server for server in few if server.workers == many.workers)
    route = (quantity(many) - quantity(alike)) / (many.routes - alike.routes)
    return Model(fixed - route * few[0].routes, worker, route)


def models(servers: list[Measured]) -> dict[str, Model]:
    return {
        "series in text": model(servers, lambda server: server.scrapes["text"].series),
        "series in protobuf": model(servers, lambda server: server.scrapes["protobuf"].series),
        "bytes of text": model(servers, lambda server: server.scrapes["text"].bytes),
        "bytes of protobuf": model(servers, lambda server: server.scrapes["protobuf"].bytes),
        "µs of a scrape as text": model(servers, lambda server: server.scrapes["text"].microseconds, LINEAR),
        "µs of a scrape as protobuf": model(servers, lambda server: server.scrapes["protobuf"].microseconds, LINEAR),
        "bytes of the stats document": model(servers, lambda server: server.poll.bytes),
        "µs of a poll": model(servers, lambda server: server.poll.microseconds, LINEAR),
    }


# Servers and workers of each, as fleets of that many workers are often run.
FLEETS = [("10 workers: 1 server", 1, 10), ("1,000 workers: 125 servers of 8", 125, 8), ("100,000 workers: 12,500 servers of 8", 12_500, 8)]
INTERVAL = 15
DAYS = 15


def fleet_table(fitted: dict[str, Model], ingestions: list[Ingestion], routes: int) -> str:
    """What was measured, taken to fleets. Each cell is the formula of docs/scale.md."""
    rows = []
    for format in ("text", "protobuf"):
        runs = [run for run in ingestions if run.format == format]
        memory, base = line_through([(run.series, run.resident) for run in runs])
        for name, servers, workers in FLEETS:
            series = servers * fitted[f"series in {format}"].of(workers, routes)
            rate = series / INTERVAL
            rows.append(
                [name, format, f"{series:,.0f}", f"{rate:,.0f}",
                 si(servers * fitted[f"bytes of {format}"].of(workers, routes) / INTERVAL) + "/s",
                 f"{fitted[f'µs of a scrape as {format}'].of(workers, routes) / INTERVAL / 1e4:.3f} %",
                 si(base + memory * series), f"{rate * runs[-1].microseconds_per_sample / 1e6:.2g}",
                 si(rate * runs[-1].bytes_per_sample * 86_400 * DAYS)]
            )  # fmt: skip
    of_prometheus = ["Prometheus: memory", "cores", f"disk, {DAYS} days"]
    return table(["fleet", "format", "series", "samples/s", "network", "of a core, in each master", *of_prometheus], rows)


def report(servers: list[Measured], ingestions: list[Ingestion]) -> str:
    fitted = models(servers)
    rows = [[name, f"{one.fixed:,.0f}", f"{one.worker:,.1f}", f"{one.route:,.1f}"] for name, one in fitted.items()]
    runs = [
        [run.format, f"{run.series:,}", str(run.targets), si(run.heap), si(run.resident), f"{run.microseconds_per_sample:.2f}",
         f"{run.bytes_per_sample:.2f}"]
        for run in ingestions
    ]  # fmt: skip
    parts = [
        "### Servers\n", server_tables(servers),
        "### Fitted\n", table(["of a server", "fixed", "for each worker", "for each route"], rows),
        "### Prometheus\n",
        table(["format", "series", "targets", "heap", "resident", "µs of CPU a sample", "bytes of disk a sample"], runs),
    ]  # fmt: skip
    for format in ("text", "protobuf"):
        memory, base = line_through([(run.series, run.resident) for run in ingestions if run.format == format])
        parts.append(f"{format}: {si(base)} and {memory / 1e3:.2f} kB for each series, resident.\n")
    for routes in (20, ROUTES):
        parts += [f"### Fleets, {routes} routes\n", fleet_table(fitted, ingestions, routes)]
    return "\n".join(parts)


def read(file: Path) -> tuple[list[Measured], list[Ingestion]]:
    """What an earlier run has measured."""
    if not file.exists():
        return [], []
    earlier = json.loads(file.read_text())
    servers = []
    for one in earlier["servers"]:
        scrapes = {format: Scrape(**scrape) for format, scrape in one["scrapes"].items()}
        servers.append(Measured(**{**one, "scrapes": scrapes, "poll": Scrape(**one["poll"])}))
    return servers, [Ingestion(**one) for one in earlier["prometheus"]]


def measure_servers(rwsgi: str, rounds: int, smoke: bool) -> list[Measured]:
    servers = []
    for workers, routes in [(1, 1), (2, 1), (2, 5)] if smoke else [(1, 1), (8, 1), (64, 1), (256, 1), (8, ROUTES)]:
        with tempfile.TemporaryDirectory() as directory:
            servers.append(measure_server(rwsgi, workers, routes, 5 if smoke else rounds, Path(directory)))
        print(f"{plural(workers, 'worker')}, {plural(routes, 'route')}: done", file=sys.stderr, flush=True)
    return servers


def measure_fleets(rwsgi: str, prometheus: str, smoke: bool) -> list[Ingestion]:
    # A chunk of the head has 120 samples: with as many a series is as large as it gets.
    scrapes, interval, fleets = (7, 0.2, (1,)) if smoke else (125, 1.0, (20, 80))
    ingestions = []
    with tempfile.TemporaryDirectory() as recorded:
        record_scrapes(rwsgi, 1 if smoke else 8, 1 if smoke else 20, scrapes, Path(recorded))
        for format in ("text", "protobuf"):
            for targets in fleets:
                with tempfile.TemporaryDirectory() as directory:
                    run = measure_prometheus(prometheus, Path(recorded), format, targets, scrapes, interval, Path(directory))
                ingestions.append(run)
                print(f"prometheus, {plural(targets, 'target')} in {format}: done", file=sys.stderr, flush=True)
    return ingestions


def tell(tables: str, write: bool) -> None:
    """Prints the tables, or puts them in the place of those in the page."""
    if not write:
        print(tables)
        return
    page = ROOT / "docs" / "scale.md"
    before, rest = page.read_text().split("<!-- measured -->\n")
    after = rest.split("<!-- /measured -->\n")[1]
    page.write_text(f"{before}<!-- measured -->\n{tables}<!-- /measured -->\n{after}")


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser("bench/scale.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rwsgi", default=os.path.join(sys.prefix, "bin", "rwsgi"), metavar="PROGRAM")
    parser.add_argument("--prometheus", default=shutil.which("prometheus") or "prometheus", metavar="PROGRAM")
    out = ROOT / "target" / "bench" / "scale.json"
    parser.add_argument("--out", type=Path, default=out, metavar="FILE", help="what was measured, as JSON")
    parser.add_argument("--rounds", type=int, default=200, metavar="N", help="scrapes of each server in each format (default: 200)")
    parser.add_argument("--smoke", action="store_true", help="whether the script works, in seconds: the numbers mean nothing")
    parser.add_argument("--only", choices=["servers", "prometheus"], help="the other part stays as an earlier run left it")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/scale.md")
    parser.add_argument("--report", action="store_true", help="measure nothing: print the tables of an earlier run")
    options = parser.parse_args(argv)
    servers, ingestions = read(options.out) if options.report or options.only else ([], [])
    if options.report:
        tell(report(servers, ingestions), options.write)
        return

    random.seed(1)
    if options.only != "prometheus":
        servers = measure_servers(options.rwsgi, options.rounds, options.smoke)
    if options.only != "servers":
        ingestions = measure_fleets(options.rwsgi, options.prometheus, options.smoke)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    measured = {"servers": [asdict(one) for one in servers], "prometheus": [asdict(one) for one in ingestions]}
    options.out.write_text(json.dumps(measured, indent=1))
    if servers and ingestions:
        tell(report(servers, ingestions), options.write)


if __name__ == "__main__":
    main(sys.argv[1:])
