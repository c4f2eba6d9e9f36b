"""Iterables at their limits: without end where no body is sent, closed once whatever happens, of very many items."""

from __future__ import annotations

import pytest

from rig import http
from rig.http import Closed, Connection
from rig.site import every_kind


@pytest.fixture(scope="module")
def odd_sites(serve_module):
    return every_kind(serve_module, "--wsgi-file", "odd.py", "--threads", 2)


@pytest.fixture(params=["http", "http-socket", "socket"])
def odd(request, odd_sites):
    return odd_sites[request.param]


@pytest.mark.only_rwsgi(why="uWSGI iterates forever")
@pytest.mark.parametrize("status", [204, 205, 304])
def test_a_body_without_end_is_not_made_where_none_is_sent(odd, record, status):
    assert odd.get(f"/endless?status={status}&record={record.path}").status == status
    assert record.wait() == ["closed"]


def test_an_iterable_that_fails_is_closed_once_and_both_failures_are_told(odd, record):
    try:
        odd.get(f"/fails-twice?record={record.path}")
    except Closed:
        pass
    assert record.wait() == ["closed"]
    odd.server.logged("iterating failed")
    odd.server.logged(r"close\(\) failed")


@pytest.mark.only_rwsgi(why="uWSGI ends such an answer like a whole one")
def test_an_answer_that_only_closing_ends_is_reset_when_it_breaks_off(odd_sites):
    """To a client of HTTP/1.0 the end of the connection is the end of the body, unless it is a reset."""
    with Connection(odd_sites["http-socket"].address) as connection:
        connection.send(b"GET /breaks-off HTTP/1.0\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            while connection.socket.recv(65536):
                pass


@pytest.mark.only_rwsgi(why="uWSGI ends such an answer like a whole one")
def test_such_an_answer_is_reset_when_its_client_takes_too_long(serve, address, record):
    serve("--http-socket", address, "--wsgi-file", "odd.py", "--socket-timeout", 5)
    with Connection(address) as connection:
        connection.send(f"GET /endless?status=200&record={record.path} HTTP/1.0\r\n\r\n".encode())
        assert record.wait() == ["closed"]
        with pytest.raises(ConnectionResetError):
            while connection.socket.recv(65536):
                pass


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_hundred_thousand_items_are_one_body(odd, method):
    answer = odd.request(method, "/many?items=100000")
    assert answer.header("Content-Length") in ("100000", None)
    assert answer.body == (b"z" * 100_000 if method == "GET" else b"")
