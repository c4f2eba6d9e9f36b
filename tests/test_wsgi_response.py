"""PEP 3333, what goes out: start_response, write(), iterables and their close(), on every kind of socket."""

from __future__ import annotations

import pytest

from rig.addresses import connect
from rig.http import Closed, Connection, head_of
from rig.waiting import until

CHUNKS = b"one,two," + b"x" * 100000 + b",end"


def test_status_and_headers_arrive_as_the_application_gave_them(site):
    answer = site.get("/headers")
    assert (answer.status, answer.reason, answer.body) == (299, "Something Else", b"ok")
    ours = [(name, value) for name, value in answer.headers if name.startswith(("X-", "Set-"))]
    assert ours == [("X-B", "2"), ("X-A", "1"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-Latin", "caf\xe9")]


def test_an_empty_iterable_is_an_empty_body(site):
    answer = site.get("/empty")
    assert (answer.status, answer.body) == (200, b"")


def test_an_iterable_is_sent_whole_and_closed(site, record):
    answer = site.get(f"/chunks?record={record.path}")
    assert (answer.status, answer.body) == (200, CHUNKS)
    assert record.wait() == ["closed"]


def test_write_comes_before_the_iterable(site, record):
    assert site.get(f"/write?record={record.path}").body == b"written twice and iterated"
    assert record.wait() == ["closed"]


def test_a_generator_may_start_the_response_when_first_asked(site):
    answer = site.get("/late-start")
    assert (answer.status, answer.body) == (200, b"late")


@pytest.mark.parametrize("by", ["write", "yield"])
def test_each_part_is_sent_when_it_is_given(site, tmp_path, by):
    go = tmp_path / "go"
    with site.open("GET", f"/stepwise?by={by}&go={go}") as connection:
        received = b""
        while b"first " not in received:
            piece = connection.read(1)
            received += piece
        go.touch()
        assert b"second" in connection.rest()


def test_close_is_called_when_the_client_goes_away(site, record):
    connection = site.open("GET", f"/endless?record={record.path}")
    connection.read(100_000)
    connection.reset()
    assert record.wait() == ["closed"]


def test_close_is_called_when_iterating_fails(site, record):
    token = f"close-{site.kind}"
    with pytest.raises(Closed), site.open("GET", f"/fail-iterating?after=2&token={token}&record={record.path}") as connection:
        connection.response()
    assert record.wait() == ["closed"]
    site.server.logged(f"ValueError: failed {token}")


@pytest.mark.only_rwsgi(why="uWSGI sends a body to HEAD")
def test_close_is_called_after_a_head_request(http_site, record):
    answer = head_of(http_site.address, f"/chunks?record={record.path}")
    assert answer.status == 200
    assert record.wait() == ["closed"]


@pytest.mark.only_rwsgi(why="uWSGI sends a body to HEAD")
def test_head_keeps_the_length_and_drops_the_body(http_site):
    answer = head_of(http_site.address, "/large?bytes=5000")
    assert (answer.status, answer.header("Content-Length")) == (200, "5000")


@pytest.mark.parametrize("code", [204, 304])
def test_a_status_without_a_body_has_none_even_when_the_application_gives_one(site, code, record):
    answer = site.get(f"/status?code={code}&record={record.path}")
    assert (answer.status, answer.body) == (code, b"")
    assert record.wait() == ["closed"]


@pytest.mark.only_rwsgi(why="uWSGI passes the body on")
@pytest.mark.parametrize("code", [204, 304])
def test_the_body_of_a_status_that_has_none_is_dropped_and_the_connection_stays_in_step(http_site, code):
    with Connection(http_site.address) as connection:
        assert connection.request("GET", f"/status?code={code}&body=wrong").status == code
        assert connection.request("GET", "/unread").body == b"not read"


@pytest.mark.parametrize("code", [200, 201, 301, 404, 418, 500, 599])
def test_any_final_status_is_passed_on(site, code):
    answer = site.get(f"/status?code={code}&body=said&length=1")
    assert (answer.status, answer.reason, answer.body) == (code, "Said So", b"said")


@pytest.mark.only_rwsgi(why="uWSGI drops the body after exc_info")
def test_exc_info_replaces_a_head_that_is_not_sent(site):
    answer = site.get("/exc-info-before")
    assert (answer.status, answer.reason, answer.body) == (503, "Sorry", b"sorry")
    assert answer.header("X-Of") is None
    assert answer.header("Content-Type") == "text/html"


def test_exc_info_after_the_head_was_sent_is_raised_and_ends_the_connection(site):
    token = f"late-{site.kind}"
    with site.open("GET", f"/exc-info-after?token={token}") as connection:
        with pytest.raises(Closed) as closed:
            connection.response()
    assert closed.value.received == b"sent"
    site.server.logged(f"ValueError: too late {token}")


def test_a_file_goes_out_after_what_write_sent(site, tmp_path):
    (tmp_path / "file").write_bytes(b"the file")
    assert site.get(f"/file-written?file={tmp_path}/file").body == b"before the file"


def test_a_large_body_arrives_whole_at_a_slow_reader(site):
    size = 20_000_000
    with site.open("GET", f"/large?bytes={size}") as connection:
        # Nothing is read until the server has more than the sockets' buffers hold.
        until(lambda: connection.socket.recv(1, 0x2), "the answer begins")
        assert len(connection.response().body) == size


LEAVES = """
import os, time

class Left:
    def __del__(self):
        end = time.monotonic() + 60
        while not os.path.exists("seen") and time.monotonic() < end:
            time.sleep(0.01)

def application(environ, start_response):
    environ["left"] = Left()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"whole"]
"""


@pytest.mark.only_rwsgi(why="it closes a connection when Python is done with the request")
def test_the_end_of_a_connection_does_not_wait_for_what_an_application_leaves_behind(serve, address, tmp_path):
    (tmp_path / "leaves.py").write_text(LEAVES)
    serve("--http-socket", address, "--wsgi-file", "leaves.py", cwd=tmp_path)
    with connect(address) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        response = b""
        while piece := client.recv(65536):
            response += piece
    (tmp_path / "seen").touch()
    assert response.startswith(b"HTTP/1.1 200 ") and response.endswith(b"\r\n\r\nwhole")
