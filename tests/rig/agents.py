"""What monitoring agents report to: receivers that keep whatever comes, and environments with the agents in them."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import shutil
import socketserver
import ssl
import struct
import subprocess
import sys
import sysconfig
import threading
import zlib
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rig.server import APPS, Program

AGENT_SITES = APPS / "agents"
PLACE = Path(__file__).resolve().parents[2] / "target/agents"
PYTHON = f"{sys.implementation.name}-{sys.version_info.major}.{sys.version_info.minor}{getattr(sys, 'abiflags', '')}"
CONSOLE_COMMAND = "#!{python}\nimport sys\nfrom rwsgi import main\nsys.exit(main())\n"


def environment(name: str, packages: list[str], program: Program) -> Path:
    """A virtual environment with these packages and the server under test, made once for each list. Only wheels are
    installed: nothing is compiled here. Skips where a package has none for a Python that is newer than most."""
    PLACE.mkdir(parents=True, exist_ok=True)
    place = PLACE / f"{name}-{PYTHON}"
    wanted = json.dumps([sys.version, sys.prefix, packages])
    with (PLACE / f"{name}-{PYTHON}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made_from = place / "made-from"
        if not (made_from.exists() and made_from.read_text() == wanted):
            shutil.rmtree(place, ignore_errors=True)
            _uv("venv", "--python", sys.executable, place)
            _uv("pip", "install", "--python", place / "bin/python", "--only-binary", ":all:", *packages)
            made_from.write_text(wanted)
        if not program.is_uwsgi:
            _link_server(program, place)
    return place


def _uv(*arguments: object) -> None:
    uv = shutil.which("uv")
    assert uv, "uv is not there: tests/run installs what the tests need"
    command = [uv, "--quiet", "--no-config", *map(str, arguments)]
    # A busy network costs time, and not the test.
    settings = {
        "UV_CACHE_DIR": str(PLACE / "cache"), "UV_PYTHON_DOWNLOADS": "never", "UV_HTTP_TIMEOUT": "120", "UV_HTTP_RETRIES": "8",
    }
    ran = subprocess.run(command, capture_output=True, env=os.environ | settings, timeout=500)
    if ran.returncode and (sys.version_info >= (3, 14) or sysconfig.get_config_var("Py_GIL_DISABLED")):
        pytest.skip(f"not for this Python: {ran.stderr.decode()}")
    assert ran.returncode == 0, f"{command}: {ran.stderr.decode()}"


def _link_server(program: Program, place: Path) -> None:
    """The server as it is installed where its command is, so that it is always the one of now."""
    (theirs,) = (package.parent for package in Path(program.path).parent.parent.glob("lib/python*/site-packages/rwsgi"))
    (ours,) = place.glob("lib/python*/site-packages")
    for entry in [theirs / "rwsgi", theirs / "uwsgidecorators.py", *theirs.glob("rwsgi-*.dist-info")]:
        link = ours / entry.name
        link.unlink(missing_ok=True)
        link.symlink_to(entry)
    command = place / "bin/rwsgi"
    command.write_text(CONSOLE_COMMAND.format(python=place / "bin/python"))
    command.chmod(0o755)


class _Receiver:
    """Keeps what has come, as bytes that were unpacked."""

    def __init__(self) -> None:
        self.received: list[bytes] = []

    def has(self, text: str) -> bool:
        """Whether this has come."""
        return any(text.encode() in piece for piece in list(self.received))


# What New Relic's collector says to the methods that want to hear something.
NEW_RELIC = {
    "preconnect": {"redirect_host": "127.0.0.1"},
    "connect": {
        "agent_run_id": "1",
        "event_harvest_config": {"report_period_ms": 200, "harvest_limits": {"analytic_event_data": 1000}},
    },
}


def answer_to(path: str) -> bytes:
    """What each agent takes for a success."""
    _, _, method = path.partition("method=")
    if method:
        return json.dumps({"return_value": NEW_RELIC.get(method.split("&")[0], [])}).encode()
    if path.startswith("/v1/"):
        # An empty message of protobuf.
        return b""
    if path.endswith("/traces"):
        return b'{"rate_by_service": {}}'
    return b'{"version": "8.17.0"}'


class Inbox(_Receiver):
    """Takes everything that is sent by HTTP, or HTTPS with a certificate, and finds it good."""

    def __init__(self, certificate: Any = None) -> None:
        super().__init__()
        inbox = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self._unpacked(self._body())
                inbox.received.append(self.path.encode() + b" " + body)
                self._answer()

            do_PUT = do_GET = do_POST

            def _body(self) -> bytes:
                if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length", 0)))
                body = b""
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            def _unpacked(self, body: bytes) -> bytes:
                return {"gzip": gzip.decompress, "deflate": zlib.decompress}.get(
                    self.headers.get("Content-Encoding", "").lower(), bytes
                )(body)

            def _answer(self) -> None:
                said = answer_to(self.path)
                self.send_response(202 if "/intake/" in self.path else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate.cert, certificate.key)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def port(self) -> int:
        """Its port on 127.0.0.1."""
        return self.server.server_port

    def close(self) -> None:
        """Ends it."""
        self.server.shutdown()
        self.server.server_close()


class ScoutCoreAgent(_Receiver):
    """In the place of Scout's core agent: messages of JSON behind their lengths."""

    def __init__(self) -> None:
        super().__init__()
        agent = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                while len(size := self.rfile.read(4)) == 4:
                    agent.received.append(self.rfile.read(struct.unpack(">I", size)[0]))
                    self.wfile.write(struct.pack(">I", 2) + b"{}")

        class Listener(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True

        self.server = Listener(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def port(self) -> int:
        """Its port on 127.0.0.1."""
        return self.server.server_address[1]

    def close(self) -> None:
        """Ends it."""
        self.server.shutdown()
        self.server.server_close()


@dataclass(frozen=True)
class Launched(Program):
    """A server that an agent's command starts."""

    launcher: tuple[str, ...] = ()

    def command(self, arguments: list[str]) -> list[str]:
        """The command line, behind the agent's."""
        return [*self.launcher, *super().command(arguments)]
