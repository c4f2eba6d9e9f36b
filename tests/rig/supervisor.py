"""What systemd is told."""

from __future__ import annotations

import socket
from pathlib import Path

from rig.waiting import until


class Notifications:
    """The socket that systemd listens on."""

    def __init__(self, path: Path) -> None:
        self.path, self.received = path, []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def lines(self) -> list[str]:
        while True:
            try:
                self.received += self._socket.recv(65536).decode().split("\n")
            except BlockingIOError:
                return self.received

    def wait(self, wanted: str, count: int = 1) -> None:
        until(
            lambda: sum(line.startswith(wanted) for line in self.lines()) >= count,
            f"{wanted} {count} times",
            context=lambda: str(self.lines()),
        )

    def close(self) -> None:
        self._socket.close()
