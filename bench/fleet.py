#!/usr/bin/env python3
"""What a poll of a fleet costs rtop: processor time and memory, with every server answering and with some slow or dead.

    bench/fleet.py --rtop target/release/rtop --rwsgi rwsgi --servers 500

One process plays all servers: it listens on one port of every loopback address, and answers with documents that a real rwsgi
of 4 workers of 2 threads gave under load, a second after the other.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
import urllib.request
from pathlib import Path

APP = """
import random, time

def application(environ, start_response):
    time.sleep(random.expovariate(1 / 0.002))
    path = environ["PATH_INFO"]
    start_response("200 OK" if hash(path) % 50 else "500 Internal Server Error", [("Content-Type", "text/plain")])
    return [b"x" * 200]
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def read(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        return b"".join(iter(lambda: connection.recv(65536), b""))


def load(port: int, stop: threading.Event) -> None:
    number = 0
    while not stop.is_set():
        number += 1
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/orders/{number % 40}", timeout=5).read()
        except OSError:
            pass


def documents(rwsgi: str, seconds: int) -> list[bytes]:
    """What a loaded server said, one document a second."""
    with tempfile.TemporaryDirectory() as directory:
        app = Path(directory) / "app.py"
        app.write_text(APP)
        web, stats = free_port(), free_port()
        command = [rwsgi, "--http-socket", f"127.0.0.1:{web}", "--wsgi-file", str(app), "--master", "--processes", "4"]
        command += ["--threads", "2", "--stats", f"127.0.0.1:{stats}", "--disable-logging"]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stop = threading.Event()
        try:
            time.sleep(3)
            for _ in range(4):
                threading.Thread(target=load, args=(web, stop), daemon=True).start()
            found = []
            for _ in range(seconds):
                time.sleep(1)
                found.append(read(stats))
            return found
        finally:
            stop.set()
            server.terminate()
            server.wait()


class Servers:
    """Every address of 127.0.0.0/8 at one port: those of `silent` accept and say nothing."""

    def __init__(self, found: list[bytes], silent: set[str]) -> None:
        self.found, self.silent = found, silent
        self.listener = socket.create_server(("0.0.0.0", 0), backlog=4096)
        self.port = self.listener.getsockname()[1]
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self.serve()
            finally:
                os._exit(0)
        self.listener.close()

    def serve(self) -> None:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        held: dict[int, socket.socket] = {}
        began = time.monotonic()
        selector = selectors.DefaultSelector()
        selector.register(self.listener, selectors.EVENT_READ)
        while True:
            selector.select()
            connection, _ = self.listener.accept()
            if connection.getsockname()[0] in self.silent:
                held[connection.fileno()] = connection
                if len(held) > 5000:
                    held.clear()
                continue
            connection.sendall(self.found[int(time.monotonic() - began) % len(self.found)])
            connection.close()

    def stop(self) -> None:
        os.kill(self.pid, signal.SIGTERM)
        os.waitpid(self.pid, 0)


def addresses(count: int) -> list[str]:
    return [f"127.{1 + number // 250}.0.{1 + number % 250}" for number in range(count)]


def processor_seconds(pid: int) -> float:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def memory(pid: int, what: str) -> float:
    """MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith(what)).split()[1]) / 1024


def started(command: list[str], screen: bool) -> tuple[subprocess.Popen, int | None]:
    """A program that writes to nowhere, or on a terminal of 160x50, whose other end is drained."""
    if not screen:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL), None
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 160, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, env=environment, start_new_session=True)
    os.close(theirs)

    def drain() -> None:
        try:
            while os.read(ours, 65536):
                pass
        except OSError:
            pass

    threading.Thread(target=drain, daemon=True).start()
    return process, ours


def measured(options: argparse.Namespace, found: list[bytes], count: int, silent: int, dead: int) -> None:
    all_addresses = addresses(count)
    servers = Servers(found, set(all_addresses[:silent]))
    nobody = free_port()
    with tempfile.TemporaryDirectory() as directory:
        targets = Path(directory) / "targets.txt"
        lines = [
            f"{address}:{nobody if silent <= number < silent + dead else servers.port}"
            for number, address in enumerate(all_addresses)
        ]
        targets.write_text("\n".join(lines))
        watching = ["--servers", "-n", "100000"] if options.sources else options.watching.split()
        rtop, terminal = started([options.rtop, f"@{targets}", *watching], screen=not watching)
        try:
            time.sleep(5)
            before, began = processor_seconds(rtop.pid), time.monotonic()
            time.sleep(options.seconds)
            spent = (processor_seconds(rtop.pid) - before) / (time.monotonic() - began)
            each = spent / (count - silent - dead) * 1e6
            print(
                f"{count} servers, {silent} silent, {dead} dead: {spent * 100:.2f} % of a core, {each:.0f} µs for each that answers, "
                f"{memory(rtop.pid, 'VmRSS'):.1f} MB, at most {memory(rtop.pid, 'VmHWM'):.1f} MB",
                flush=True,
            )
        finally:
            rtop.terminate()
            rtop.wait()
            servers.stop()
            if terminal is not None:
                os.close(terminal)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    beside = Path(sys.executable).parent
    parser.add_argument("--rtop", default=str(beside / "rtop"))
    parser.add_argument("--rwsgi", default=str(beside / "rwsgi"))
    parser.add_argument("--servers", type=int, default=500)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--documents", type=int, default=40, help="seconds of a real server's documents that are played")
    parser.add_argument("--sources", action="store_true", help="only ask and subtract; show nothing")
    parser.add_argument("--watching", default="", help="how rtop watches, such as --json; without this on a screen")
    options = parser.parse_args()
    found = documents(options.rwsgi, options.documents)
    print(f"documents of {sum(map(len, found)) // len(found)} bytes", flush=True)
    count = options.servers
    measured(options, found, count, 0, 0)
    measured(options, found, count, count // 10, count // 10)
    return 0


if __name__ == "__main__":
    sys.exit(main())
