"""A real Alertmanager with its own directory and ports, and a receiver of what it sends."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from rig.addresses import listening, tcp
from rig.waiting import until

PROGRAM = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager") or "/usr/bin/prometheus-alertmanager"
AMTOOL = shutil.which("amtool") or "/usr/bin/amtool"


def amtool(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs `amtool`; the caller looks at its status and output."""
    command = [AMTOOL, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


class Receiver:
    """What webhooks have sent: a path with the message, in the order in which they came."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, dict[str, Any]]] = []
        messages = self.messages

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                messages.append((self.path, json.loads(body)))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = "127.0.0.1:{}".format(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._server.server_close()


class Alertmanager:
    """A running Alertmanager with this configuration."""

    def __init__(self, directory: Path, config: str) -> None:
        self.address = tcp()
        path, self._log = directory / "alertmanager.yml", directory / "alertmanager.log"
        path.write_text(config)
        command = [
            PROGRAM, f"--config.file={path}", f"--storage.path={directory / 'data'}", f"--web.listen-address={self.address}",
            # No others to gossip with.
            "--cluster.listen-address=",
        ]
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        try:
            until(self._listens, "Alertmanager listens", context=self._log.read_text)
        except AssertionError:
            self.stop()
            raise

    def _listens(self) -> bool:
        assert self.process.poll() is None, f"Alertmanager ended:\n{self._log.read_text()}"
        return listening(self.address)

    def stop(self) -> None:
        """Stops it."""
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
