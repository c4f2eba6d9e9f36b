"""HAProxy in front of several servers, as Kubernetes' endpoints are: it asks each for /-/ready, and tries no request twice."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from rig.addresses import free_port, listening
from rig.waiting import until

PROGRAM = shutil.which("haproxy") or "/usr/sbin/haproxy"

CONFIG = """
global
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    # A server is gone when it says so or refuses, not when a busy machine answers late.
    timeout check 10s
    retries 0
    http-reuse safe
frontend site
    bind {address}
    default_backend servers
backend servers
    balance roundrobin
    option httpchk GET /-/ready
    http-check expect status 200
    default-server check inter 100ms fastinter 100ms downinter 100ms fall 1 rise 1
{servers}
"""


class HAProxy:
    """A running HAProxy for servers, each with the address of its probes. Its log has every request that failed."""

    def __init__(self, directory: Path, servers: list[tuple[str, str]]) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        lines = [
            f"    server s{number} {address} addr {probe.rsplit(':', 1)[0]} port {probe.rsplit(':', 1)[1]}"
            for number, (address, probe) in enumerate(servers)
        ]
        config = directory / "haproxy.cfg"
        config.write_text(CONFIG.format(address=self.address, servers="\n".join(lines)))
        self._log = directory / "haproxy.log"
        self.process = subprocess.Popen(
            [PROGRAM, "-db", "-f", str(config)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._log.open("wb"), start_new_session=True,
        )
        try:
            until(self._ready, "HAProxy listens", context=self.log)
        except AssertionError:
            self.stop()
            raise

    def _ready(self) -> bool:
        assert self.process.poll() is None, f"HAProxy ended:\n{self.log()}"
        return listening(self.address)

    def log(self) -> str:
        """What it said: servers that go and come."""
        return self._log.read_text(errors="replace")

    def stop(self) -> None:
        """Stops it."""
        self.process.kill()
        self.process.wait(30)
