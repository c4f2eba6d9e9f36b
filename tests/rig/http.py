"""An HTTP/1.1 client that sends exactly the bytes it is given, and refuses every answer that is not well formed."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, field

from rig.addresses import connect

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9]) ([\t\x20-\x7e\x80-\xff]*)")
_FIELD_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*")
_BODILESS = {204, 304}


class BadAnswer(AssertionError):
    """The server sent what RFC 9112 does not allow."""


class Closed(ConnectionError):
    """The server closed the connection where an answer was due, or in the middle of one."""

    def __init__(self, message: str, received: bytes = b"") -> None:
        super().__init__(message)
        self.received = received


@dataclass
class Response:
    """One answer."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    # Every byte of the answer as it came over the wire, 1xx answers before it included.
    size: int = 0
    interim: list[int] = field(default_factory=list)
    version: str = "HTTP/1.1"
    # How the end of the body was told: "length", "chunked", "close" or "none".
    framing: str = "none"
    trailers: list[tuple[str, str]] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        """Every value of a header."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        """The only value of a header; more than one is a failure."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} was sent {len(values)} times: {values}"
        return values[0] if values else None

    @property
    def text(self) -> str:
        """The body, as latin-1."""
        return self.body.decode("latin-1")


class Connection:
    """One connection to a server that speaks HTTP/1.1."""

    def __init__(self, address: str, timeout: float = 30.0) -> None:
        self.socket = connect(address, timeout)
        self._buffer = b""
        self._taken = 0
        # Everything received, answers and what followed them.
        self.received = 0

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes both directions."""
        self.socket.close()

    def reset(self) -> None:
        """Closes at once, so that the server's next write fails."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Sends bytes as they are."""
        self.socket.sendall(data)

    def request(self, method: str, target: str, headers: dict[str, str] | None = None, body: bytes | None = None) -> Response:
        """Sends a request with a Host header (and Content-Length, where there is a body) and reads the answer."""
        try:
            self.send(head(method, target, headers, body) + (body or b""))
        except (BrokenPipeError, ConnectionResetError):
            # The server may have answered without all of the body, and have waited no longer for the rest of it.
            pass
        return self.response(method)

    def _more(self) -> bool:
        try:
            data = self.socket.recv(262144)
        except ConnectionResetError:
            data = b""
        self.received += len(data)
        self._buffer += data
        return bool(data)

    def _take(self, count: int) -> bytes:
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        self._taken += count
        return taken

    def _exactly(self, count: int) -> bytes:
        pieces = []
        while count:
            if not self._buffer and not self._more():
                raise Closed(f"the connection ended {count} bytes before the body did", b"".join(pieces))
            piece = self._take(min(count, len(self._buffer)))
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)

    def _line(self) -> bytes:
        while b"\n" not in self._buffer:
            if not self._more():
                raise Closed("the connection ended in the middle of a line", self._buffer)
        line = self._take(self._buffer.index(b"\n") + 1)
        if not line.endswith(b"\r\n"):
            raise BadAnswer(f"a line that ends in a bare LF: {line!r}")
        return line[:-2]

    def _fields(self) -> list[tuple[str, str]]:
        fields = []
        while True:
            line = self._line()
            if not line:
                return fields
            match = _FIELD_LINE.fullmatch(line)
            if not match:
                raise BadAnswer(f"not a field line: {line!r}")
            fields.append((match[1].decode("latin-1"), match[2].decode("latin-1")))

    def response(self, method: str = "GET") -> Response:
        """Reads one answer to the end of its body."""
        start = self._taken
        interim = []
        while True:
            if not self._buffer and not self._more():
                raise Closed("the connection ended where an answer was due")
            line = self._line()
            match = _STATUS_LINE.fullmatch(line)
            if not match:
                raise BadAnswer(f"not a status line: {line!r}")
            headers = self._fields()
            status = int(match[2])
            if status >= 200 or status == 101:
                break
            interim.append(status)
        answer = Response(status, match[3].decode("latin-1"), headers, interim=interim)
        answer.version = f"HTTP/1.{match[1].decode()}"
        self._body(answer, method)
        answer.size = self._taken - start
        return answer

    def _body(self, answer: Response, method: str) -> None:
        length, coding = answer.header("Content-Length"), answer.header("Transfer-Encoding")
        if length is not None and coding is not None:
            raise BadAnswer("an answer with both Content-Length and Transfer-Encoding")
        if length is not None and not length.isdigit():
            raise BadAnswer(f"Content-Length: {length}")
        if answer.status == 204 and (length is not None or coding is not None):
            raise BadAnswer("a 204 with a body's length")
        if method == "HEAD" or answer.status in _BODILESS:
            return
        if coding is not None:
            if coding.lower() != "chunked":
                raise BadAnswer(f"Transfer-Encoding: {coding}")
            answer.framing, answer.body = "chunked", self._chunks(answer)
        elif length is not None:
            answer.framing, answer.body = "length", self._exactly(int(length))
        else:
            answer.framing = "close"
            while self._more():
                pass
            answer.body = self._take(len(self._buffer))

    def _chunks(self, answer: Response) -> bytes:
        pieces = []
        while True:
            line = self._line()
            size = line.split(b";", 1)[0].strip()
            if not re.fullmatch(rb"[0-9A-Fa-f]+", size):
                raise BadAnswer(f"not a chunk size: {line!r}")
            if int(size, 16) == 0:
                answer.trailers = self._fields()
                return b"".join(pieces)
            pieces.append(self._exactly(int(size, 16)))
            if self._line():
                raise BadAnswer("a chunk that is longer than it says")

    def read(self, count: int) -> bytes:
        """The next `count` bytes as they are."""
        return self._exactly(count)

    def rest(self) -> bytes:
        """Everything up to the end of the connection."""
        while self._more():
            pass
        return self._take(len(self._buffer))

    def closed_by_server(self) -> bool:
        """Waits for the server to close; False when it sent something instead. A timeout is a failure."""
        return not self._buffer and not self._more()


def head(method: str, target: str, headers: dict[str, str] | None = None, body: bytes | None = None) -> bytes:
    """The bytes of a request's head."""
    fields = {"Host": "localhost"}
    if body is not None:
        fields["Content-Length"] = str(len(body))
    fields.update(headers or {})
    lines = [f"{method} {target} HTTP/1.1"] + [f"{name}: {value}" for name, value in fields.items()]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


def request(
    address: str, method: str, target: str, headers: dict[str, str] | None = None, body: bytes | None = None
) -> Response:
    """One request on a connection of its own."""
    with Connection(address) as connection:
        return connection.request(method, target, {"Connection": "close", **(headers or {})}, body)


def get(address: str, target: str, headers: dict[str, str] | None = None) -> Response:
    """A GET on a connection of its own."""
    return request(address, "GET", target, headers)


def head_of(address: str, target: str) -> Response:
    """A HEAD on a connection of its own, and nothing may follow the answer's head."""
    with Connection(address) as connection:
        answer = connection.request("HEAD", target, {"Connection": "close"})
        assert connection.rest() == b"", "bytes after the head of an answer to HEAD"
        return answer
