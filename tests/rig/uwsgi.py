"""A client of the uwsgi protocol: what nginx's `uwsgi_pass` sends."""

from __future__ import annotations

import struct
from contextlib import suppress

from rig.http import Connection, Response


def packet(variables: list[tuple[str, str]], modifier1: int = 0, modifier2: int = 0) -> bytes:
    """A request packet: a four byte head, and the variables, each name and value with its length before it."""
    block = b""
    for name, value in variables:
        for text in (name.encode("latin-1"), value.encode("latin-1")):
            block += struct.pack("<H", len(text)) + text
    return struct.pack("<BHB", modifier1, len(block), modifier2) + block


def variables(
    method: str, target: str, headers: dict[str, str] | None = None, body: bytes | None = None
) -> list[tuple[str, str]]:
    """What nginx's `uwsgi_params` would send for a request."""
    path, _, query = target.partition("?")
    result = [
        ("QUERY_STRING", query),
        ("REQUEST_METHOD", method),
        ("CONTENT_TYPE", ""),
        ("CONTENT_LENGTH", "" if body is None else str(len(body))),
        ("REQUEST_URI", target),
        ("PATH_INFO", path),
        ("DOCUMENT_ROOT", "/var/www"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("REQUEST_SCHEME", "http"),
        ("REMOTE_ADDR", "192.0.2.7"),
        ("REMOTE_PORT", "50000"),
        ("SERVER_PORT", "80"),
        ("SERVER_NAME", "localhost"),
        ("HTTP_HOST", "localhost"),
    ]
    for name, value in (headers or {}).items():
        key = name.upper().replace("-", "_")
        if key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            result = [(k, value if k == key else v) for k, v in result]
        else:
            result.append((f"HTTP_{key}", value))
    return result


def request(
    address: str, method: str, target: str, headers: dict[str, str] | None = None, body: bytes | None = None
) -> Response:
    """One request; the end of the answer is the end of the connection, as for nginx."""
    with Connection(address) as connection:
        with suppress(ConnectionError):
            # Who refuses a body may close before it is sent: the answer, if there is one, is there to read.
            connection.send(packet(variables(method, target, headers, body)) + (body or b""))
        answer = connection.response(method)
        assert connection.rest() == b"", "bytes after the end of the answer"
        return answer


def get(address: str, target: str, headers: dict[str, str] | None = None) -> Response:
    """A GET."""
    return request(address, "GET", target, headers)
