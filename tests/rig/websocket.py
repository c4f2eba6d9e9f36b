"""A WebSocket client, as small as RFC 6455 lets it be."""

from __future__ import annotations

import os
import socket
import struct

from rig.addresses import connect
from rig.waiting import DEADLINE

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: example.org\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{more}\r\n"
)


class WebSocket:
    """A client that has sent its handshake."""

    def __init__(self, address: str, path: str = "/", more: str = "", handshake: str = HANDSHAKE) -> None:
        self.socket = connect(address)
        self.socket.settimeout(DEADLINE)
        self.socket.sendall(handshake.format(path=path, key=KEY, more=more).encode())
        self.file = self.socket.makefile("rb")
        #: The status line, and the header lines that follow.
        self.status, *self.headers = self._head()

    def _head(self) -> list[str]:
        lines = []
        while line := self.file.readline().decode().rstrip("\r\n"):
            lines.append(line)
        return lines or [""]

    def __enter__(self) -> WebSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.socket.close()

    def send(self, data: bytes, opcode: int = TEXT) -> None:
        """Sends a frame, masked as a client's must be."""
        length = len(data)
        if length < 126:
            head = struct.pack("!BB", 0x80 | opcode, 0x80 | length)
        elif length < 1 << 16:
            head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, length)
        else:
            head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, length)
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))
        self.socket.sendall(head + mask + masked)

    def receive(self) -> tuple[int, bytes] | None:
        """The next frame: its opcode and its data; None when the server has closed."""
        try:
            head = self.file.read(2)
            if len(head) < 2:
                return None
            opcode, length = head[0] & 0x0F, head[1] & 0x7F
            if length == 126:
                (length,) = struct.unpack("!H", self.file.read(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", self.file.read(8))
            return opcode, self.file.read(length)
        except ConnectionResetError:
            return None

    def end(self) -> None:
        """Ends the sending side, without a close frame."""
        self.socket.shutdown(socket.SHUT_WR)
