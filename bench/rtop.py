#!/usr/bin/env python3
"""rtop beside uwsgitop: processor time per refresh, memory, time to the first frame, on the same real uWSGI.

    bench/rtop.py --rtop PATH [--uwsgi PATH] [--uwsgitop PATH] [--seconds 30] [--history 3600]

Starts a uWSGI of 64 workers of 2 threads under a small load, then each monitor in a pty of its own at 1 Hz, and reads
their processor time and memory from /proc. Afterwards an hour of readings of that pool is put into a recording and
played as fast as it goes, for the memory that an hour of history takes.
"""

from __future__ import annotations

import argparse
import fcntl
import gzip
import json
import os
import pty
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

APP = "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'hello']\n"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def document(port: int) -> dict:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        return json.loads(b"".join(iter(lambda: connection.recv(65536), b"")))


class Monitor:
    """A program in a pty of 160x50, its output read and its first whole frame waited for."""

    def __init__(self, command: list[str], sign: bytes) -> None:
        began = time.monotonic()
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            # Here, so that it is so from the first moment on.
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 160, 0, 0))
            os.environ.update(TERM="xterm-256color", LC_ALL="C.UTF-8")
            os.execv(command[0], command)
        self.first_frame = None
        self.reader = threading.Thread(target=self._read, args=(began, sign), daemon=True)
        self.reader.start()

    def _read(self, began: float, sign: bytes) -> None:
        seen = b""
        while True:
            try:
                chunk = os.read(self.terminal, 65536)
            except OSError:
                return
            if not chunk:
                return
            if self.first_frame is None:
                seen += chunk
                if sign in seen:
                    self.first_frame = time.monotonic() - began

    def processor_seconds(self) -> float:
        threads = Path(f"/proc/{self.pid}/task").iterdir()
        return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9

    def resident(self) -> float:
        """MB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024

    def stop(self) -> None:
        os.kill(self.pid, signal.SIGTERM)
        os.waitpid(self.pid, 0)
        os.close(self.terminal)


def load(port: int, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read()
        except OSError:
            pass
        time.sleep(0.005)


def measured(name: str, command: list[str], sign: bytes, seconds: int) -> None:
    monitor = Monitor(command, sign)
    time.sleep(3)
    before = monitor.processor_seconds()
    time.sleep(seconds)
    cpu = (monitor.processor_seconds() - before) / seconds * 1000
    first = f"{monitor.first_frame * 1000:.0f} ms" if monitor.first_frame else "never"
    print(f"{name:<10} {cpu:8.2f} ms/refresh {monitor.resident():8.1f} MB   first frame {first}")
    monitor.stop()


def hour(rtop: str, base: dict, seconds: int) -> None:
    """An hour of a pool in which every worker works, played at once."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "hour.rtop"
        with path.open("wb") as file:
            for second in range(seconds):
                for index, worker in enumerate(base["workers"]):
                    worker["requests"] += 3 + (second * 7 + index * 13) % 50
                    worker["tx"] += 1_000 + (second * 31 + index) % 9_000
                    worker["running_time"] += 20_000 + (second * 17 + index) % 5_000
                    worker["avg_rt"] = 500 + (second * 11 + index * 3) % 4_000
                    worker["status"] = "busy" if (second + index) % 3 else "idle"
                    for core in worker["cores"]:
                        core["requests"] += 2 + (second + index) % 25
                line = {"target": "hour", "taken": 1_700_000_000_000_000 + second * 1_000_000, "document": base}
                file.write(gzip.compress(json.dumps(line).encode() + b"\n", 1))
        monitor = Monitor([rtop, "--replay", str(path)], b"WID")
        time.sleep(1)
        os.write(monitor.terminal, b"+" * 12)
        end = time.monotonic() + 600
        before = -1.0
        while time.monotonic() < end and monitor.processor_seconds() != before:
            before = monitor.processor_seconds()
            time.sleep(3)
        print(f"rtop       {monitor.resident():8.1f} MB after {seconds} s of history of {len(base['workers'])} workers")
        monitor.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    beside = Path(sys.executable).parent
    parser.add_argument("--rtop", default=str(beside / "rtop"))
    parser.add_argument("--uwsgi", default=str(beside / "uwsgi"))
    parser.add_argument("--uwsgitop", default=str(beside / "uwsgitop"))
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--history", type=int, default=3600)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        app = Path(directory) / "app.py"
        app.write_text(APP)
        web, stats = free_port(), free_port()
        server = subprocess.Popen(
            [options.uwsgi, "--http-socket", f"127.0.0.1:{web}", "--wsgi-file", str(app), "--master", "--processes", "64"]
            + ["--threads", "2", "--stats", f"127.0.0.1:{stats}", "--memory-report", "--disable-logging", "--die-on-term"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        stop = threading.Event()
        try:
            time.sleep(3)
            threading.Thread(target=load, args=(web, stop), daemon=True).start()
            address = f"127.0.0.1:{stats}"
            measured("uwsgitop", [options.uwsgitop, address], b"WID", options.seconds)
            measured("rtop", [options.rtop, address], b"WID", options.seconds)
            base = document(stats)
        finally:
            stop.set()
            server.terminate()
            server.wait()
        hour(options.rtop, base, options.history)
    return 0


if __name__ == "__main__":
    sys.exit(main())
