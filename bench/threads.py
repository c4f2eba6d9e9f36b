#!/usr/bin/env python3
"""A page that computes, served by one thread, by two threads of a process, and by two processes: how much more two make.

    bench/threads.py --rounds 5 --seconds 2 NAME=COMMAND …      each COMMAND has {address} and {app}; ends of NAME are free

    bench/threads.py \\
        'rwsgi 1x1=V/bin/rwsgi --http-socket {address} --wsgi-file {app} --threads 1' \\
        'rwsgi 1x2=V/bin/rwsgi --http-socket {address} --wsgi-file {app} --threads 2' \\
        'granian 1x2=V/bin/granian --interface wsgi --workers 1 --blocking-threads 2 --port {port} {module}:application'

The commands take turns, in each round in another order, and each is started once. Of each: requests a second, processor time
of all of the server's processes for a request, and how many processors it used. On a machine that others use the second and
the third say more than the first.
"""

from __future__ import annotations

import argparse
import http.client
import os
import random
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

APP = '''
def compute(steps):
    total = 0
    for n in range(steps):
        total = (total * 31 + n) % 1000003
    return total


def application(environ, start_response):
    body = b"%d" % compute(STEPS)
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
'''
TICKS = os.sysconf("SC_CLK_TCK")
CLIENTS = 4


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def family(root: int) -> list[int]:
    """A process and all that come from it. Those that it has adopted are its children."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(") ", 1)[1].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, left = [], [root]
    while left:
        found.append(left.pop())
        left += parents.get(found[-1], [])
    return found


def processor_time(root: int) -> float:
    """What a server's living processes have used, seconds."""
    total = 0
    for pid in family(root):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


class Served:
    """A server, and what was measured of it."""

    def __init__(self, name: str, command: str, app: Path) -> None:
        self.name, self.port = name, free_port()
        words = shlex.split(command.format(address=f"127.0.0.1:{self.port}", port=self.port, app=app, module=app.stem))
        self.log = app.with_name(f"{self.port}.log")
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(words, cwd=app.parent, stdout=output, stderr=subprocess.STDOUT)
        self.rates: list[float] = []
        self.costs: list[float] = []
        self.used: list[float] = []

    def wait(self) -> None:
        end = time.monotonic() + 60
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
                connection.request("GET", "/")
                assert connection.getresponse().read()
                return
            except OSError:
                if time.monotonic() > end or self.process.poll() is not None:
                    sys.exit(f"{self.name} does not answer:\n{self.log.read_text()}")
                time.sleep(0.1)

    def measure(self, seconds: float) -> None:
        counts = [0] * CLIENTS
        over = threading.Event()

        def client(number: int) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
            while not over.is_set():
                connection.request("GET", "/")
                connection.getresponse().read()
                counts[number] += 1

        threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
        before, began = processor_time(self.process.pid), time.monotonic()
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        over.set()
        for thread in threads:
            thread.join()
        took, cost = time.monotonic() - began, processor_time(self.process.pid) - before
        self.rates.append(sum(counts) / took)
        self.costs.append(cost / sum(counts) * 1000)
        self.used.append(cost / took)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} – {max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--steps", type=int, default=200_000, help="of the computation of a request")
    parser.add_argument("servers", nargs="+", metavar="NAME=COMMAND")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-threads-") as directory:
        app = Path(directory) / "computing.py"
        app.write_text(APP.replace("STEPS", str(options.steps)))
        servers = [Served(*given.split("=", 1), app) for given in options.servers]
        try:
            for served in servers:
                served.wait()
            for _ in range(options.rounds):
                for served in random.sample(servers, len(servers)):
                    served.measure(options.seconds)
        finally:
            for served in servers:
                served.stop()
    print("| server | requests a second | processor time for a request, ms | processors used |")
    print("| --- | --- | --- | --- |")
    for served in servers:
        print(f"| {served.name} | {spread(served.rates)} | {spread(served.costs)} | {spread(served.used)} |")


if __name__ == "__main__":
    main()
