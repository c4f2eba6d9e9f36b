"""nginx with its own directory, configuration and ports, from the files that `deploy/nginx` offers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

from rig.addresses import free_port, listening
from rig.waiting import until

DEPLOY = Path(__file__).resolve().parent.parent.parent / "deploy" / "nginx"
PROGRAM = shutil.which("nginx") or "/usr/sbin/nginx"

# Only what keeps one nginx apart from another, and lets it hold the connections that the tests make.
MAIN = """
{user}
daemon off;
pid {prefix}/nginx.pid;
error_log {prefix}/error.log warn;
worker_processes 2;
events {{ worker_connections 8192; }}
http {{
    access_log {prefix}/access.log;
    client_body_temp_path {prefix}/body;
    proxy_temp_path {prefix}/proxy;
    fastcgi_temp_path {prefix}/fastcgi;
    uwsgi_temp_path {prefix}/uwsgi;
    scgi_temp_path {prefix}/scgi;
{servers}
}}
"""


class Nginx:
    """A running nginx. `sites` names files of `deploy/nginx`, each with what to put in the place of its example;
    `locations` is served beside `/` in every one. `servers` are blocks of their own, with ADDRESS to listen on. `user` is who its workers are, when root starts it."""

    def __init__(
        self, prefix: Path, sites: dict[str, tuple[str, str]], locations: str = "", servers: dict[str, str] | None = None,
        user: str = "root",
    ) -> None:  # fmt: skip
        self.prefix = prefix
        servers = servers or {}
        self.addresses = {name: f"127.0.0.1:{free_port()}" for name in (*sites, *servers)}
        texts = []
        for name, (example, real) in sites.items():
            text = (DEPLOY / f"{name}.conf").read_text()
            # A client that finds no space in its backlog of 511 retries after a second, whatever the upstream is.
            listen = ("listen 80;", f"listen {self.addresses[name]} backlog=4096;")
            root = "    location / {"
            for old, new in ((example, real), listen, (root, locations + root)):
                assert old in text, f"{name}.conf says nothing of {old}"
                text = text.replace(old, new)
            texts.append(text)
        texts += [text.replace("ADDRESS", self.addresses[name]) for name, text in servers.items()]
        shutil.copy("/etc/nginx/uwsgi_params", prefix)
        user = f"user {user};" if os.getuid() == 0 else ""
        config = prefix / "nginx.conf"
        config.write_text(MAIN.format(prefix=prefix, servers="\n".join(texts), user=user))
        self.process = subprocess.Popen(
            [PROGRAM, "-p", str(prefix), "-c", str(config), "-e", str(prefix / "error.log")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(prefix / "startup.log").open("wb"),
            start_new_session=True,
        )
        try:
            until(self._ready, "nginx listens", context=self.log)
        except AssertionError:
            self.stop()
            raise

    def _ready(self) -> bool:
        assert self.process.poll() is None, f"nginx ended:\n{self.log()}"
        return all(listening(address) for address in self.addresses.values())

    def log(self) -> str:
        """Everything that it complained of."""
        return "".join(path.read_text() for path in (self.prefix / "startup.log", self.prefix / "error.log") if path.exists())

    def stop(self) -> None:
        """Stops it with its workers."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise
