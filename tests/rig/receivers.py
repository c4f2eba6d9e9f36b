"""The real receivers of what a server sends by itself: npm's `statsd`, Graphite's `carbon`."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

from rig.addresses import free_port, listening
from rig.waiting import until

# tests/run installs it by tests/statsd/package-lock.json.
STATSD = Path(__file__).resolve().parents[2] / "target/npm/node_modules/statsd/stats.js"


class _Program:
    """A program with its log."""

    def __init__(self, command: list[object], log: Path, listens: str, env: dict[str, str] | None = None) -> None:
        self.log_path = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env,
                start_new_session=True,
            )
        try:
            until(lambda: self.process.poll() is not None or listening(listens), f"{command[0]} listens", context=self.log)
        except AssertionError:
            self.stop()
            raise
        assert self.process.poll() is None, self.log()

    def log(self) -> str:
        """Everything that it logged."""
        return self.log_path.read_text(errors="replace")

    def stop(self) -> None:
        """Stops it."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Statsd(_Program):
    """A statsd that keeps what it got: it flushes once in an hour."""

    def __init__(self, directory: Path) -> None:
        node = shutil.which("node")
        assert node and STATSD.exists(), "tests/run installs node and statsd (target/npm)"
        self.port, self.console = free_port(), free_port()
        config = {
            "address": "127.0.0.1", "port": self.port, "mgmt_address": "127.0.0.1", "mgmt_port": self.console,
            "flushInterval": 3_600_000, "backends": ["./backends/console"], "dumpMessages": True,
        }
        path = directory / "statsd.js"
        path.write_text(json.dumps(config))
        super().__init__([node, STATSD, path], directory / "statsd.log", f"127.0.0.1:{self.console}")

    def numbers(self, kind: str) -> dict[str, float]:
        """Its `counters` or `gauges`."""
        with socket.create_connection(("127.0.0.1", self.console), timeout=30) as console:
            console.sendall(f"{kind}\n".encode())
            text = ""
            while "END\n\n" not in text:
                piece = console.recv(65536).decode()
                assert piece, text
                text += piece
        # An object as node prints it: names in quotes where they need some.
        return {name: float(value) for name, value in re.findall(r"'?([^\s',{]+)'?: (-?[\d.]+)", text)}


class Carbon(_Program):
    """A carbon-cache with a second's resolution."""

    def __init__(self, directory: Path, port: int | None = None) -> None:
        self.port = port or free_port()
        conf = directory / "conf"
        conf.mkdir(parents=True, exist_ok=True)
        self.storage = directory / "whisper"
        lines = [
            "[cache]", f"LOCAL_DATA_DIR = {self.storage}", f"LOG_DIR = {directory}", "USER =", "MAX_CREATES_PER_MINUTE = inf",
            "CARBON_METRIC_INTERVAL = 0", "ENABLE_UDP_LISTENER = False",
            *("LINE_RECEIVER_INTERFACE = 127.0.0.1", f"LINE_RECEIVER_PORT = {self.port}"),
            *("PICKLE_RECEIVER_INTERFACE = 127.0.0.1", f"PICKLE_RECEIVER_PORT = {free_port()}"),
            *("CACHE_QUERY_INTERFACE = 127.0.0.1", f"CACHE_QUERY_PORT = {free_port()}"),
        ]
        (conf / "carbon.conf").write_text("\n".join(lines) + "\n")
        (conf / "storage-schemas.conf").write_text("[all]\npattern = .*\nretentions = 1s:1h\n")
        program = Path(sys.prefix) / "bin/carbon-cache.py"
        super().__init__(
            [sys.executable, program, f"--config={conf / 'carbon.conf'}", f"--pidfile={directory / 'pid'}", "--nodaemon", "start"],
            directory / "carbon.log", f"127.0.0.1:{self.port}",
            env={
                "GRAPHITE_ROOT": str(directory), "PATH": "/usr/bin:/bin",
                # The protobufs that OpenTelemetry brings read what carbon has generated in no other way.
                "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python",
            },
        )

    def last(self, name: str) -> float | None:
        """The last value that it has written of a name."""
        import whisper

        path = self.storage / (name.replace(".", "/") + ".wsp")
        try:
            fetched = whisper.fetch(str(path), 0)
        except (FileNotFoundError, whisper.CorruptWhisperFile):
            # carbon makes the file before it writes what every file begins with.
            return None
        return next((value for value in reversed(fetched[1]) if value is not None), None) if fetched else None
