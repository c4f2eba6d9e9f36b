"""Refusals reach those who are refused, and waits are measured from where they begin."""

from __future__ import annotations

import pytest

from rig import uwsgi
from rig.addresses import tcp
from rig.http import Connection, head
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI closes without a word")


@pytest.fixture(scope="module")
def limited(serve_module):
    address, socket = tcp(), tcp()
    serve_module(
        "--http-socket", address, "--socket", socket, "--wsgi-file", "odd.py", "--master", "--limit-post", 1000,
        "--http-keepalive=5",
    )
    return address, socket


def test_a_client_that_asks_first_is_told_that_its_body_is_too_large(limited):
    with Connection(limited[0]) as connection:
        connection.send(head("POST", "/quick", {"Expect": "100-continue", "Content-Length": "1001"}))
        answer = connection.response()
        assert (answer.status, answer.interim) == (413, [])


def test_a_client_of_the_uwsgi_protocol_is_told_too(limited):
    assert uwsgi.request(limited[1], "POST", "/quick", body=b"x" * 1001).status == 413
    assert uwsgi.request(limited[1], "HEAD", "/quick", body=b"x" * 1001).status == 413, "and without a body, a HEAD"


def test_a_client_that_never_stops_sending_what_was_refused_holds_no_core(limited):
    with Connection(limited[0]) as flood:
        flood.send(head("POST", "/quick", {"Content-Length": "100000000000"}))

        def is_closed_by_server() -> bool:
            with Connection(limited[0]) as other:
                assert other.request("GET", "/quick").status == 200
            try:
                for _ in range(50):
                    flood.socket.send(b"x" * 1_000_000)
            except ConnectionError:
                return True
            return False

        until(is_closed_by_server, "the server closes it")


def test_the_time_for_a_head_does_not_begin_before_the_head(limited):
    with Connection(limited[0]) as begun, Connection(limited[0]) as idle:
        for connection in (begun, idle):
            assert connection.request("GET", "/quick").status == 200
        request = head("GET", "/quick")
        begun.send(request[:20])
        # The other's idle time is over: so would be this one's, had it not begun a request.
        assert idle.closed_by_server()
        begun.send(request[20:])
        assert begun.response().status == 200
