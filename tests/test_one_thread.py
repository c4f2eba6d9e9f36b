"""What one client can do to the others of a single thread: all of it waits in the epoll set, and each gets its turn."""

from __future__ import annotations

import pytest

from rig.http import Connection, head
from rig.site import every_kind

KINDS = ["http", "http-socket"]
LENGTH = 10_000_000
POST_BUFFERING = 100_000

APP = """
from __future__ import annotations
import os, time

served = 0

def application(environ, start_response):
    global served
    path = environ["PATH_INFO"]
    if path == "/whole":
        start_response("200 OK", [("Content-Length", str(LENGTH))])
        return [b"w" * LENGTH]
    if path == "/wrapped":
        start_response("200 OK", [("Content-Length", str(LENGTH))])
        return environ["wsgi.file_wrapper"](open("files/data", "rb"))
    if path == "/sendfile":
        import uwsgi
        start_response("200 OK", [("Content-Length", str(LENGTH))])
        uwsgi.sendfile("files/data")
        return []
    if path == "/length":
        body = environ["wsgi.input"].read()
        assert body == b"x" * len(body)
        start_response("200 OK", [])
        return [str(len(body)).encode()]
    if path == "/brief":
        while served == 1 and not os.path.exists("go"):
            time.sleep(0.01)
        time.sleep(0.002)
        served += 1
    start_response("200 OK", [])
    return [str(served).encode()]
"""


@pytest.fixture
def sites(serve, tmp_path):
    """One thread on every kind of socket, an application, and a file."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "data").write_bytes(b"f" * LENGTH)
    (tmp_path / "one.py").write_text(APP.replace("LENGTH", str(LENGTH)))
    options = ("--chdir", tmp_path, "--wsgi-file", "one.py", "--static-map", f"/static={tmp_path / 'files'}")
    return every_kind(serve, *options, "--post-buffering", POST_BUFFERING, "--processes", 1, "--threads", 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", ["/whole", "/wrapped", "/static/data", "/sendfile"])
def test_those_who_read_a_finished_answer_slowly_hold_no_thread(sites, kind, target):
    site = sites[kind]
    slow = [site.open("GET", target) for _ in range(6)]
    for connection in slow:
        # It has begun.
        connection.socket.recv(1, 0x2)
    for _ in range(3):
        assert site.get("/").status == 200
    for connection in slow:
        assert len(connection.response().body) == LENGTH
        connection.close()


@pytest.mark.only_rwsgi(why="uWSGI answers one request of a connection")
@pytest.mark.parametrize("kind", KINDS)
def test_a_client_that_sends_many_requests_at_once_leaves_the_others_their_turn(sites, tmp_path, kind):
    site, many = sites[kind], 500
    with Connection(site.address) as greedy, Connection(site.address) as other:
        assert other.request("GET", "/").body == b"0"
        greedy.send(head("GET", "/brief") * many)
        greedy.response()
        # It comes while the application is at the second one.
        other.send(head("GET", "/"))
        (tmp_path / "go").touch()
        assert int(other.response().body) < many // 2
        # None is lost, and the order is theirs.
        assert [int(greedy.response().body) for _ in range(many - 1)] == list(range(2, many + 1))


@pytest.mark.only_rwsgi(why="uWSGI refuses chunks unless the application reads them")
@pytest.mark.parametrize("kind", KINDS)
def test_a_body_in_many_small_chunks_is_whole_wherever_it_waits(sites, kind):
    """In memory, and in a file beyond `post-buffering`; the next request comes with its end."""
    for length in (1000, POST_BUFFERING, 3 * POST_BUFFERING):
        with Connection(sites[kind].address) as connection:
            connection.send(head("POST", "/length", {"Transfer-Encoding": "chunked"}))
            connection.send(b"1\r\nx\r\n" * length + b"0\r\n\r\n" + head("GET", "/"))
            assert [connection.response().body for _ in range(2)] == [str(length).encode(), b"0"]
