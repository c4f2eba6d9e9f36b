"""Connections that are held open by processes of their own: one process may have only so many descriptors."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
# From one address to one port there are some 28,000 ports.
MOST_EACH = 12_500


def most() -> int:
    """Descriptors that a process may have here."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Holders:
    """Keep-alive connections that have been answered once, each process of them to a loopback address of its own."""

    def __init__(self, port: int) -> None:
        self.port, self.count, self.pids = port, 0, []

    def hold(self, count: int) -> None:
        """Opens more, until there are so many."""
        while self.count < count:
            some = min(MOST_EACH, count - self.count)
            self._start(f"127.0.0.{1 + self.count // MOST_EACH}", some)
            self.count += some

    def _start(self, address: str, count: int) -> None:
        told, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            try:
                held = [self._connect(address) for _ in range(count)]
                os.write(tell, b"+" if held else b"")
                signal.pause()
            finally:
                os._exit(1)
        os.close(tell)
        self.pids.append(pid)
        if os.read(told, 1) != b"+":
            sys.exit(f"bench/growth.py: {self.count + count:,} connections cannot be opened")
        os.close(told)

    def _connect(self, address: str) -> socket.socket:
        connection = socket.create_connection((address, self.port), timeout=60)
        connection.sendall(REQUEST)
        received = b""
        while not received.endswith(b"hello"):
            if not (more := connection.recv(4096)):
                raise ConnectionError("closed")
            received += more
        return connection

    def stop(self) -> None:
        """Closes all."""
        for pid in self.pids:
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)
        self.pids, self.count = [], 0
