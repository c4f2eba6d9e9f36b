"""What systemd is told."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

from rig.waiting import until


class Notifications:
    """The socket that systemd listens on. It is read all the time: the system keeps ten messages of who waits for
    something else, and the server drops what is too much."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._received: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while message := self._socket.recv(65536):
            self._received += message.decode().split("\n")

    def lines(self) -> list[str]:
        return list(self._received)

    def wait(self, wanted: str, count: int = 1) -> None:
        until(
            lambda: sum(line.startswith(wanted) for line in self.lines()) >= count,
            f"{wanted} {count} times",
            context=lambda: str(self.lines()),
        )

    def close(self) -> None:
        # An empty message is the last.
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", str(self.path))
        self._reader.join()
        self._socket.close()
