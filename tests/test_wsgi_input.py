"""PEP 3333, what comes in: wsgi.input, bodies of every framing and size, and the connection after them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest

from rig import uwsgi
from rig.http import Closed, Connection, head
from rig.waiting import until

BODY = b"first\nsecond\r\n\nlast without an end"


OWN_WAY = pytest.mark.only_rwsgi(why="uWSGI reads otherwise where a size is given")


def reading(*calls: list) -> str:
    return "/read?calls=" + quote(json.dumps(calls))


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ([["read"], ["read"], ["readline"]], [BODY, b"", b""]),
        ([["read", -1]], [BODY]),
        pytest.param([["read", 0], ["read", 3], ["read", 3], ["read", 1000], ["read", 1]], [b"", b"fir", b"st\n", BODY[6:], b""], marks=OWN_WAY),
        ([["readline"]] * 5, [b"first\n", b"second\r\n", b"\n", b"last without an end", b""]),
        pytest.param([["readline", 3], ["readline", 100], ["readline", -1]], [b"fir", b"st\n", b"second\r\n"], marks=OWN_WAY),
        pytest.param([["readline", 6], ["readline", 0]], [b"first\n", b""], marks=OWN_WAY),
        ([["readlines"], ["readlines"]], [[b"first\n", b"second\r\n", b"\n", b"last without an end"], []]),
        ([["list"], ["read"]], [[b"first\n", b"second\r\n", b"\n", b"last without an end"], b""]),
        ([["read", 3], ["readline"], ["list"]], [b"fir", b"st\n", [b"second\r\n", b"\n", b"last without an end"]]),
    ],
    ids=lambda value: "-".join("".join(map(str, call)) for call in value) if isinstance(value[0], list) else "",
)
def test_reading_gives_the_body_and_then_nothing(site, calls, expected):
    answer = site.request("POST", reading(*calls), body=BODY)
    wanted = [[l.decode() for l in part] if isinstance(part, list) else part.decode() for part in expected]
    assert json.loads(answer.body) == wanted


@pytest.mark.only_rwsgi(why="uWSGI's readlines ignores its hint")
def test_readlines_stops_after_its_hint(site):
    first, rest = json.loads(site.request("POST", reading(["readlines", 7], ["readlines"]), body=BODY).body)
    assert first == ["first\n", "second\r\n"]
    assert rest == ["\n", "last without an end"]


def test_a_request_without_a_body_reads_empty(site):
    assert json.loads(site.get(reading(["read"], ["readline"], ["readlines"], ["list"])).body) == ["", "", [], []]


@pytest.mark.parametrize("size", [1, 4096, 65536, 3_000_017])
def test_a_body_arrives_as_it_was_sent(site, size):
    body = os.urandom(size)
    assert site.request("POST", "/digest", body=body).text == f"{size} {hashlib.sha256(body).hexdigest()}"


@pytest.mark.only_rwsgi(why="uWSGI's HTTP sockets do not keep connections alive")
@pytest.mark.parametrize("size", [10, 50_000, 2_000_000])
def test_a_body_that_was_not_read_is_never_taken_for_the_next_request(http_site, size):
    body = b"GET /pid HTTP/1.1\r\nHost: smuggled\r\n\r\n" * (size // 40 + 1)
    with Connection(http_site.address) as connection:
        connection.send(head("POST", "/unread", body=body) + body)
        assert connection.response().body == b"not read"
        # Keeping the connection after reading the body away is right, and so is closing it.
        try:
            assert connection.request("GET", "/headers").status == 299
        except ConnectionError:
            pass


@pytest.mark.only_rwsgi(why="uWSGI's HTTP sockets do not keep connections alive")
def test_reading_stops_at_the_end_of_the_body_with_the_next_request_behind_it(http_site):
    with Connection(http_site.address) as connection:
        connection.send(head("POST", reading(["read"], ["read"]), body=BODY) + BODY + head("GET", "/unread"))
        assert json.loads(connection.response().body) == [BODY.decode(), ""]
        assert connection.response().body == b"not read"


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@pytest.mark.only_rwsgi(why="uWSGI leaves chunked bodies to the application")
@pytest.mark.parametrize(
    ("sent", "body"),
    [
        (chunked(BODY), BODY),
        (chunked(b"a", b"b" * 70000, b"c"), b"a" + b"b" * 70000 + b"c"),
        (chunked(), b""),
        (b'5;name=value;quoted="a;b"\r\nhello\r\n0\r\n\r\n', b"hello"),
        (b"0005\r\nhello\r\n000\r\n\r\n", b"hello"),
        (b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\nX-Trailer: 1\r\n\r\n", b"0123456789" * 2),
    ],
    ids=["one", "three", "none", "extensions", "leading-zeros", "trailers"],
)
def test_a_chunked_body_is_read_like_any_other(http_site, sent, body):
    with Connection(http_site.address) as connection:
        connection.send(head("POST", "/digest", {"Transfer-Encoding": "chunked"}) + sent)
        assert connection.response().text == f"{len(body)} {hashlib.sha256(body).hexdigest()}"
        connection.send(head("POST", reading(["readline"], ["read"]), {"Transfer-Encoding": "chunked"}) + sent)
        assert "".join(json.loads(connection.response().body)).encode() == body
        assert connection.request("GET", "/unread").body == b"not read"


@pytest.mark.only_rwsgi(why="uWSGI leaves chunked bodies to the application")
def test_a_chunked_body_that_arrives_in_single_bytes_is_read(http_site):
    with Connection(http_site.address) as connection:
        for byte in head("POST", "/digest", {"Transfer-Encoding": "chunked"}) + chunked(b"one", b"two"):
            connection.send(bytes([byte]))
        assert connection.response().text == f"6 {hashlib.sha256(b'onetwo').hexdigest()}"


def test_a_body_that_arrives_in_single_bytes_is_read(site):
    with site.open("POST", "/digest", {"Content-Length": str(len(BODY))}) as connection:
        for byte in BODY:
            connection.send(bytes([byte]))
        assert connection.response().text == f"{len(BODY)} {hashlib.sha256(BODY).hexdigest()}"


def test_a_body_that_breaks_off_is_never_taken_for_a_whole_one(site, record):
    connection = site.open("POST", f"/digest?record={record.path}", {"Content-Length": "1000000"}, body=b"x" * 5000)
    connection.close()
    # A server may also wait for the whole body, and then never call the application.
    token = f"after-{site.kind}"
    site.get(f"/errors?token={token}")
    site.server.logged(f"written {token}")
    assert not any(line.startswith("whole") for line in record.lines())


@pytest.mark.only_rwsgi(why="uWSGI wants an option for it")
def test_expect_100_continue_is_answered_before_the_body_is_sent(http_site):
    with Connection(http_site.address) as connection:
        connection.send(head("POST", "/digest", {"Expect": "100-continue", "Content-Length": str(len(BODY))}))
        received = b""
        while not received.endswith(b"\r\n\r\n"):
            received += connection.read(1)
        assert received.startswith(b"HTTP/1.1 100 ")
        connection.send(BODY)
        assert connection.response().text.startswith(f"{len(BODY)} ")


@pytest.mark.only_rwsgi(why="uWSGI's HTTP sockets do not keep connections alive")
def test_expect_100_continue_is_kept_in_step_when_nobody_reads_the_body(http_site):
    with Connection(http_site.address) as connection:
        connection.send(head("POST", "/unread", {"Expect": "100-continue", "Content-Length": "5"}))
        # Whether the server asks for the body or answers without it, nothing of it becomes a request.
        until(lambda: connection.socket.recv(1, 0x2), "an answer of either kind")
        connection.send(b"hello")
        answer = connection.response()
        assert (answer.status, answer.body) == (200, b"not read")
        try:
            assert connection.request("GET", "/headers").status == 299
        except ConnectionError:
            pass


def peak_memory(pids: list[int]) -> int:
    """The most resident memory that any of the processes ever had, bytes."""
    peaks = [re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text()) for pid in pids]
    return max(int(peak[1]) * 1024 for peak in peaks if peak)


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_of_two_gigabytes_needs_no_memory(site, program, framing):
    if framing == "chunked" and (site.kind == "socket" or program.is_uwsgi):
        pytest.skip("the uwsgi protocol knows lengths only; uWSGI leaves chunked bodies to the application")
    piece, count = bytes(1 << 20), 2048
    total = len(piece) * count + 1
    head_fields = {"Content-Length": str(total)} if framing == "length" else {"Transfer-Encoding": "chunked"}
    with site.open("POST", "/count", head_fields) as connection:
        connection.socket.settimeout(120)
        for _ in range(count):
            connection.send(b"100000\r\n%s\r\n" % piece if framing == "chunked" else piece)
        connection.send(b"1\r\n.\r\n0\r\n\r\n" if framing == "chunked" else b".")
        assert connection.response().text == str(total)
    assert peak_memory([process.pid for process in site.server.processes()]) < 200 << 20


def test_a_uwsgi_packet_in_pieces_is_read(probe_sites):
    packet = uwsgi.packet(uwsgi.variables("POST", "/digest", body=BODY)) + BODY
    with Connection(probe_sites["socket"].address) as connection:
        for byte in packet:
            connection.send(bytes([byte]))
        assert connection.response().text.startswith(f"{len(BODY)} ")


@pytest.mark.only_rwsgi(why="uWSGI closes too, but at other limits")
@pytest.mark.parametrize(
    "packet",
    [
        struct.pack("<BHB", 0, 10, 0) + struct.pack("<H", 500) + b"x" * 8,
        struct.pack("<BHB", 0, 3, 0) + b"\x01\x00a",
        b"GET / HTTP/1.1\r\nHost: wrong protocol\r\n\r\n",
    ],
    ids=["length-beyond-the-packet", "name-without-value", "http"],
)
def test_a_broken_uwsgi_packet_closes_the_connection_and_harms_nobody(probe_sites, packet):
    site = probe_sites["socket"]
    with Connection(site.address) as connection:
        connection.send(packet)
        # The server may have closed it by then.
        with suppress(OSError):
            connection.socket.shutdown(1)
        try:
            assert connection.response().status == 400
        except Closed:
            pass
    assert site.get("/unread").body == b"not read"


def test_a_client_that_says_nothing_holds_nobody_up(site):
    silent = [Connection(site.address) for _ in range(20)]
    try:
        until(lambda: site.get("/unread").body == b"not read", "an answer beside silent connections")
    finally:
        for connection in silent:
            connection.close()
