"""What a proxy says of its client before the client's own bytes, on every socket that speaks HTTP."""

from __future__ import annotations

import json
import socket
import struct

import pytest

from rig import tls
from rig.addresses import tcp
from rig.http import Connection, head
from rig.tls import TlsConnection

V2 = b"\r\n\r\n\0\r\nQUIT\n"
LINE = b"PROXY TCP4 192.0.2.7 198.51.100.1 40007 8443\r\n"


def version_2(address: str, port: int, more: bytes = b"", command: int = 0x21) -> bytes:
    """The header of the second version."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    ip = socket.inet_pton(family, address)
    rest = ip + ip + struct.pack("!HH", port, 443) + more
    return V2 + bytes([command, 0x21 if ":" in address else 0x11]) + struct.pack("!H", len(rest)) + rest


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    return tls.self_signed(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def sites(serve_module, own):
    """A server that lets proxies speak for their clients, on each kind of socket."""
    addresses = {kind: tcp() for kind in ("http", "http-socket", "https")}
    if serve_module.program.is_uwsgi:
        serve_module("--master", "--http", addresses["http"], "--http-enable-proxy-protocol", "--wsgi-file", "probe.py")
        serve_module("--http-socket", addresses["http-socket"], "--enable-proxy-protocol", "--wsgi-file", "probe.py")
        return addresses
    serve_module(
        "--http", addresses["http"], "--http-socket", addresses["http-socket"],
        "--https", f"{addresses['https']},{own.cert},{own.key}", "--enable-proxy-protocol", "--wsgi-file", "probe.py",
        listens=list(addresses.values()),
    )  # fmt: skip
    return addresses


@pytest.fixture(params=["http", "http-socket", "https"])
def begin(request, sites, program):
    """Opens a connection that begins with these bytes."""
    if request.param == "https" and program.is_uwsgi:
        pytest.skip("the test environment's uWSGI is built without TLS")

    def begin(first=b""):
        at = sites[request.param]
        if request.param == "https":
            # As proxies send it: before TLS.
            return TlsConnection(at, first=first)
        connection = Connection(at)
        connection.socket.sendall(first)
        return connection

    return begin


def client_of(connection):
    """Who the application takes the client for."""
    environ = json.loads(connection.request("GET", "/environ").body)
    return environ["REMOTE_ADDR"], environ["REMOTE_PORT"]


def test_the_first_version_names_the_client(begin):
    with begin(LINE) as connection:
        assert client_of(connection) == ("192.0.2.7", "40007")


def test_a_client_without_it_is_served_as_any_other(begin):
    with begin() as connection:
        assert client_of(connection)[0] == "127.0.0.1"


only_rwsgi = pytest.mark.only_rwsgi(why="uWSGI knows the first version only, and keeps no connection alive here")


@only_rwsgi
@pytest.mark.parametrize(
    ("header", "address"),
    [
        (b"PROXY TCP6 2001:db8::7 ::1 5 80\r\n", "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (version_2("192.0.2.9", 9), "192.0.2.9"),
        (version_2("2001:db8::9", 9), "2001:db8::9"),
        # Extensions, and a health check of the proxy's own.
        (version_2("192.0.2.9", 9, b"\x04\0\x40" + b"x" * 64), "192.0.2.9"),
        (version_2("192.0.2.9", 9, command=0x20), "127.0.0.1"),
        (V2 + b"\x21\x31\0\0", "127.0.0.1"),
    ],
)
def test_both_versions_hold_for_every_request_of_the_connection(begin, header, address):
    with begin(header) as connection:
        for _ in range(3):
            assert client_of(connection)[0] == address
        connection.send(b"".join(head("POST", "/digest", body=b"x" * n) + b"x" * n for n in (0, 5, 50_000)))
        assert [connection.response().text.split()[0] for _ in range(3)] == ["0", "5", "50000"]


@only_rwsgi
@pytest.mark.parametrize("kind", ["http", "http-socket"])
@pytest.mark.parametrize("header", [LINE, version_2("192.0.2.7", 40007)])
def test_it_may_come_byte_by_byte(sites, kind, header):
    with Connection(sites[kind]) as connection:
        for byte in header + head("GET", "/environ"):
            connection.socket.sendall(bytes([byte]))
        assert json.loads(connection.response().body)["REMOTE_ADDR"] == "192.0.2.7"


@only_rwsgi
@pytest.mark.parametrize("kind", ["http", "http-socket"])
@pytest.mark.parametrize(
    "header",
    [
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY UNKNOWN " + b"x" * 200 + b"\r\n",
        b"PROXY / HTTP/1.1\r\nHost: a\r\n\r\n",
        V2 + b"\x31\x11\0\x0c" + b"x" * 12,
        V2 + b"\x21\x11\xff\xff" + b"x" * 20,
    ],
)
def test_a_broken_one_is_refused(sites, kind, header):
    with Connection(sites[kind]) as connection:
        connection.send(header + head("GET", "/environ"))
        assert connection.response().status == 400
        assert connection.closed_by_server()


@only_rwsgi
def test_a_broken_one_before_tls_ends_the_connection(sites):
    with Connection(sites["https"]) as connection:
        connection.send(V2 + b"\x31\x11\0\x0c" + b"x" * 12)
        assert connection.closed_by_server()


@only_rwsgi
@pytest.mark.parametrize("kind", ["http", "http-socket", "https"])
@pytest.mark.parametrize("part", [b"", b"PRO", LINE[:-1], V2 + b"\x21"])
def test_a_part_and_no_more_ends_with_the_connection(sites, kind, part):
    with Connection(sites[kind]) as connection:
        connection.send(part)
        connection.socket.shutdown(socket.SHUT_WR)
        connection.rest()


@only_rwsgi
def test_a_part_and_no_more_has_a_deadline(serve):
    router, worker = tcp(), tcp()
    serve(
        "--http", router, "--http-socket", worker, "--enable-proxy-protocol", "--http-timeout", 1, "--socket-timeout", 1,
        "--wsgi-file", "probe.py",
    )  # fmt: skip
    for at in (router, worker):
        with Connection(at) as connection:
            connection.send(b"PROXY TCP4")
            connection.rest()


@only_rwsgi
def test_the_router_s_option_is_for_the_router_alone(serve):
    router, worker = tcp(), tcp()
    serve("--http", router, "--http-socket", worker, "--http-enable-proxy-protocol=1", "--wsgi-file", "probe.py")
    with Connection(router) as connection:
        connection.send(LINE)
        assert client_of(connection)[0] == "192.0.2.7"
    with Connection(worker) as connection:
        connection.send(LINE + head("GET", "/environ"))
        assert connection.response().status == 400


@only_rwsgi
def test_without_the_option_nobody_speaks_for_others(serve):
    router, worker = tcp(), tcp()
    serve("--http", router, "--http-socket", worker, "--wsgi-file", "probe.py")
    for at in (router, worker):
        for header in (LINE, version_2("192.0.2.9", 9)):
            with Connection(at) as connection:
                connection.send(header + head("GET", "/environ"))
                assert connection.response().status == 400
