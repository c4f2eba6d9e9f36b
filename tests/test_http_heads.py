"""Requests that two readers could understand differently are refused with the right status, and nothing after them
on the connection is ever taken for a request. On both kinds of HTTP sockets."""

from __future__ import annotations

from contextlib import suppress

import pytest

from rig.http import Closed, Connection

pytestmark = pytest.mark.only_rwsgi(why="uWSGI lets most of them pass")

GET = b"GET /unread HTTP/1.1\r\nHost: a\r\n"
POST = b"POST /digest HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

REFUSED = {
    # Two lengths, or none that can be trusted (RFC 9112 section 6.3).
    "lengths-differ": (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
    "lengths-repeated": (POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
    "length-list": (POST + b"Content-Length: 5, 5\r\n\r\nhello", 400),
    "length-signed": (POST + b"Content-Length: +5\r\n\r\nhello", 400),
    "length-negative": (POST + b"Content-Length: -1\r\n\r\n", 400),
    "length-hexadecimal": (POST + b"Content-Length: 0x5\r\n\r\nhello", 400),
    "length-empty": (POST + b"Content-Length: \r\n\r\n", 400),
    "length-beyond-64-bits": (POST + b"Content-Length: 99999999999999999999\r\n\r\n", 400),
    "length-and-chunked": (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "chunked-and-length": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
    "chunked-twice": (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "coding-unknown": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "coding-almost-chunked": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    "coding-hidden": (POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    "chunked-in-1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    # Chunks (section 7.1).
    "chunk-size-word": (CHUNKED + b"xyz\r\n", 400),
    "chunk-size-empty": (CHUNKED + b"\r\nhello\r\n", 400),
    "chunk-size-signed": (CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n", 400),
    "chunk-size-prefixed": (CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n", 400),
    "chunk-size-huge": (CHUNKED + b"fffffffffffffffff\r\nhello", 400),
    "chunk-longer-than-it-says": (CHUNKED + b"5\r\nhello!\r\n0\r\n\r\n", 400),
    "chunk-line-ends-in-lf": (CHUNKED + b"5\nhello\r\n0\r\n\r\n", 400),
    # Lines (sections 2.2, 5.1, 5.2).
    "space-before-colon": (GET + b"X-A : b\r\n\r\n", 400),
    "tab-before-colon": (GET + b"X-A\t: b\r\n\r\n", 400),
    "bare-cr-in-value": (GET + b"X-A: b\rc\r\n\r\n", 400),
    "bare-cr-before-name": (GET + b"\rX-A: b\r\n\r\n", 400),
    "bare-lf": (b"GET /unread HTTP/1.1\nHost: a\n\n", 400),
    "folded": (GET + b"X-A: b\r\n c\r\n\r\n", 400),
    "folded-first": (b"GET /unread HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    "nul-in-value": (GET + b"X-A: b\0c\r\n\r\n", 400),
    "nul-in-target": (b"GET /unread\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "name-missing": (GET + b": b\r\n\r\n", 400),
    "colon-missing": (GET + b"no colon\r\n\r\n", 400),
    "name-with-space": (GET + b"X A: b\r\n\r\n", 400),
    "name-not-ascii": (GET + b"X-\xe9: b\r\n\r\n", 400),
    # The request line and Host (sections 3 and 3.2).
    "two-spaces": (b"GET  /unread HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "space-in-target": (b"GET /un read HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "no-target": (b"GET HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "method-malformed": (b"G@T /unread HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "relative-target": (b"GET unread HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "no-host": (b"GET /unread HTTP/1.1\r\n\r\n", 400),
    "two-hosts": (GET + b"Host: b\r\n\r\n", 400),
    "version-2": (b"GET /unread HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    "version-lower-case": (b"GET /unread http/1.1\r\nHost: a\r\n\r\n", 400),
    "connect": (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    "tls": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 40, 400),
    "expectation-unknown": (POST + b"Expect: gold\r\nContent-Length: 5\r\n\r\nhello", 417),
    # Too long.
    "header-too-long": (GET + b"X-A: " + b"b" * 1_000_000 + b"\r\n\r\n", 431),
    "too-many-headers": (GET + b"X-A: b\r\n" * 20_000 + b"\r\n", 431),
    "target-too-long": (b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
}


def exchange(address: str, data: bytes) -> tuple[int | None, bytes]:
    """The status of the answer, and what came after it until the server closed."""
    with Connection(address) as connection:
        try:
            connection.send(data)
        except ConnectionError:
            pass  # refused before all was sent: what was answered is still there to read
        try:
            answer = connection.response()
        except Closed:
            return None, b""
        assert (answer.header("Connection") or "").lower() == "close", answer.headers
        return answer.status, connection.rest()


HEAD = b"HEAD /unread HTTP/1.1\r\nHost: a\r\n"
REFUSED_HEAD = {
    "malformed": (b"HEAD /unread HTTP/1.1\r\n\r\n", 400),
    "behind-an-empty-line": (b"\r\nHEAD /unread HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    "header-too-long": (HEAD + b"X-A: " + b"b" * 100_000, 431),
    "expectation-unknown": (HEAD + b"Expect: gold\r\n\r\n", 417),
    "chunk-size-word": (HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
}


@pytest.mark.parametrize("name", REFUSED_HEAD)
def test_a_head_request_is_refused_without_a_body(http_site, name):
    data, status = REFUSED_HEAD[name]
    with Connection(http_site.address) as connection:
        with suppress(ConnectionError):
            # Refused before all was sent: what was answered is still there to read.
            connection.send(data)
        answer = connection.response("HEAD")
        assert (answer.status, connection.rest()) == (status, b"")
        assert int(answer.header("Content-Length")) > 0


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_and_the_connection_closed(http_site, name, record):
    data, status = REFUSED[name]
    # What a smuggler would have the server run next.
    smuggled = f"GET /slow?go=/&record={record.path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    got, rest = exchange(http_site.address, data + smuggled)
    # A flood may be cut off by a reset that overtakes the answer; everything short must be answered.
    assert got == status or (got is None and len(data) > 100_000)
    assert rest == b""
    assert http_site.get("/unread").body == b"not read"
    assert record.lines() == []


def test_a_refused_request_never_reaches_the_application(serve, address, stats_at):
    server = serve("--http-socket", address, "--wsgi-file", "probe.py", "--stats", stats_at)
    for name in ("lengths-differ", "space-before-colon", "folded", "no-host"):
        assert exchange(address, REFUSED[name][0])[0] == 400
    worker = server.stats()["workers"][0]
    assert worker["requests"] in (0, 4)  # an answer is an answer, whichever process gave it; but never half of them
    assert worker["exceptions"] == 0
    assert worker["apps"][0]["requests"] in (0, worker["requests"])
