"""Receiving datagrams: what a server sends to a log or a syslog."""

from __future__ import annotations

import re
import socket

from rig.waiting import until


class Receiver:
    """A socket that receives lines as datagrams."""

    def __init__(self, bound: socket.socket) -> None:
        self.socket = bound
        self.socket.setblocking(False)
        self.packets: list[str] = []

    def read(self) -> list[str]:
        """Everything received so far."""
        try:
            while True:
                self.packets.append(self.socket.recv(65536).decode())
        except BlockingIOError:
            return self.packets

    def wait(self, pattern: str) -> str:
        """Waits for a packet with this in it."""
        found = until(lambda: [packet for packet in self.read() if re.search(pattern, packet)], pattern, context=lambda: str(self.packets))
        return found[0]
