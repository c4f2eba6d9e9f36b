"""A request gets the same answer through `--http` and `--http-socket`: both are
sent the same bytes, and compared in what they answer, what they say of the connection, and whether they close it."""

from __future__ import annotations

import select
from contextlib import suppress
from dataclasses import dataclass

import pytest

from rig.http import Closed, Connection, head
from rig.site import every_kind
from rig.waiting import DEADLINE, until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI's two HTTP servers have little in common")

GET = head("GET", "/unread")
POST = b"POST /digest HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
LIMIT = 300_000


def sized(length: int) -> bytes:
    """A POST with a body of so many bytes."""
    return POST + f"Content-Length: {length}\r\n\r\n".encode() + b"x" * length


# Pieces that are sent one after another.
REQUESTS: dict[str, list[bytes]] = {
    "plain": [GET],
    "two in a row": [GET + GET],
    "http/1.0": [b"GET /unread HTTP/1.0\r\n\r\n"],
    "http/1.0 that would stay": [b"GET /unread HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"],
    "http/1.0 with chunks to come": [b"GET /chunks HTTP/1.0\r\n\r\n"],
    "a wish to close": [head("GET", "/unread", {"Connection": "close"})],
    "more than was asked for": [head("GET", "/unread", {"Connection": "close"}) + GET],
    "empty lines before it": [b"\r\n\r\n" + GET],
    "too many empty lines": [b"\r\n" * 9 + GET],
    "a target with dots": [b"GET /a/../unread HTTP/1.1\r\nHost: a\r\n\r\n"],
    "a target with a NUL": [b"GET /a%00b HTTP/1.1\r\nHost: a\r\n\r\n"],
    "byte by byte": [bytes([byte]) for byte in GET],
    "no host": [b"GET /unread HTTP/1.1\r\n\r\n"],
    "bare line ends": [b"GET /unread HTTP/1.1\nHost: a\n\n"],
    "another version": [b"GET /unread HTTP/2.0\r\nHost: a\r\n\r\n"],
    "unknown coding": [POST + b"Transfer-Encoding: gzip\r\n\r\n"],
    "a long target": [b"GET /" + b"a" * 5_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"],
    "a long header": [b"GET /unread HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 5_000 + b"\r\n\r\n"],
    "a long header that ends badly": [
        b"GET /unread HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 20_000 + b"\r\nbad name: b\r\n\r\n"
    ],
    "a long header in pieces": [b"GET /unread HTTP/1.1\r\nHost: a\r\nX: "] + [b"a" * 1_000] * 5 + [b"\r\n\r\n"],
    "too many headers": [b"GET /unread HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 300 + b"\r\n"],
    "a body": [sized(10)],
    "a body for memory": [sized(90_000)],
    "a body for a file": [sized(200_000)],
    "a body as large as may be": [sized(LIMIT)],
    "a body that is too large": [sized(LIMIT + 1)],
    "a body in pieces": [sized(90_000)[at : at + 20_000] for at in range(0, 90_100, 20_000)],
    "a body and the next request": [sized(90_000) + GET],
    "a body for a file and the next request": [sized(200_000) + GET],
    "two bodies in a row": [sized(1_000) + sized(100_000) + sized(10)],
    "chunks": [CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"],
    "chunks and the next request": [CHUNKED + b"5\r\nhello\r\n0\r\n\r\n" + GET],
    "chunks in pieces": [CHUNKED, b"5", b"\r\nhel", b"lo\r\n0", b"\r\n", b"\r\n"],
    "chunks for a file": [CHUNKED + b"11170\r\n" + b"x" * 70_000 + b"\r\n" + b"11170\r\n" + b"x" * 70_000 + b"\r\n0\r\n\r\n"],
    "chunks that are too many": [CHUNKED + b"493e1\r\n" + b"x" * (LIMIT + 1) + b"\r\n0\r\n\r\n"],
    "a bad chunk": [CHUNKED + b"5\r\nhello!\r\n0\r\n\r\n"],
    "a bad chunk in the middle": [CHUNKED + b"5\r\nhello\r\n", b"xyz\r\n"],
    "a bad length": [POST + b"Content-Length: 5, 5\r\n\r\nhello"],
    "asks before it sends": [head("POST", "/digest", {"Expect": "100-continue", "Content-Length": "5"}), b"hello"],
    "asks before it sends too much": [
        head("POST", "/digest", {"Expect": "100-continue", "Content-Length": str(LIMIT + 1)})
    ],
    "asks and sends": [head("POST", "/digest", {"Expect": "100-continue", "Content-Length": "5"}) + b"hello"],
    "expects what nobody knows": [head("POST", "/digest", {"Expect": "gold", "Content-Length": "5"}) + b"hello"],
    "a body that nobody reads": [b"POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000],
}


@dataclass
class Outcome:
    """What a client can see."""

    answers: list[tuple]
    stays: bool


def outcome(address: str, pieces: list[bytes]) -> Outcome:
    """Sends the pieces, reads what comes, and asks for one more thing on the connection."""
    with Connection(address) as connection:
        answers: list[tuple] = []
        # One that has refused the request reads what still comes for two seconds, which a busy machine can miss.
        with suppress(ConnectionError):
            for piece in pieces:
                connection.send(piece)
                # A piece that is asked for comes after the question; the others mostly find that what was before is read.
                select.select([connection.socket], [], [], DEADLINE if b"100-continue" in piece else 0.01)
        try:
            while True:
                answer = connection.response()
                stays = (answer.header("Connection") or "").lower() != "close"
                said = (answer.header("Connection") or "").lower()
                answers.append((answer.interim, answer.status, said, answer.framing, answer.body))
                if not stays or answer.framing == "close":
                    return Outcome(answers, not connection.closed_by_server())
                if len(answers) == b"".join(pieces).count(b" HTTP/1."):
                    break
            connection.send(GET)
            connection.response()
            return Outcome(answers, True)
        except (Closed, ConnectionError):
            return Outcome(answers, False)


@pytest.fixture(scope="module")
def sites(serve_module):
    return every_kind(
        serve_module, "--wsgi-file", "probe.py", "--processes", 2, "--buffer-size", 4096, "--post-buffering", 100_000,
        "--limit-post", LIMIT,
    )


@pytest.mark.parametrize("name", REQUESTS)
def test_http_and_http_socket_answer_alike(sites, name):
    router = outcome(sites["http"].address, REQUESTS[name])
    direct = outcome(sites["http-socket"].address, REQUESTS[name])
    assert router == direct
    assert router.answers, "an answer, whatever it is"


PATHS: dict[str, list[bytes]] = {
    "dots": [head("GET", "/a/../unread")],
    "dots and the next request": [head("GET", "/a/../unread") + GET],
    "above the root": [head("GET", "/../unread")],
    "above the root and the next request": [head("GET", "/..") + GET],
    "escaped dots": [head("GET", "/x/%2e%2e/..%2funread")],
    "two slashes": [head("GET", "//unread")],
    "an escaped slash": [head("GET", "/a%2f../unread")],
    "an escape that is none": [head("GET", "/unread%zz")],
    "a whole url": [head("GET", "http://a/b/../unread")],
    "only a query": [head("GET", "/unread?a=/../%2f")],
    "byte by byte": [bytes([byte]) for byte in head("GET", "/b/../unread")],
    "a body": [head("POST", "/b/../digest", {"Content-Length": "5"}) + b"hello"],
    "a body that comes later": [head("POST", "/../digest", {"Content-Length": "5"}), b"hello"],
    "asks before it sends": [head("POST", "/../digest", {"Expect": "100-continue", "Content-Length": "5"})],
    "chunks": [head("POST", "/b//digest/..//digest", {"Transfer-Encoding": "chunked"}) + b"5\r\nhello\r\n0\r\n\r\n"],
}


@pytest.fixture(scope="module", params=["nginx", "reject"])
def normalising_sites(request, serve_module):
    return every_kind(serve_module, "--wsgi-file", "probe.py", "--path-normalize", request.param)


@pytest.mark.parametrize("name", PATHS)
def test_a_path_is_normalised_or_refused_alike(normalising_sites, name):
    router = outcome(normalising_sites["http"].address, PATHS[name])
    direct = outcome(normalising_sites["http-socket"].address, PATHS[name])
    assert router == direct
    assert router.answers, "an answer, whatever it is"


@pytest.fixture(scope="module")
def closing_sites(serve_module):
    return every_kind(serve_module, "--wsgi-file", "probe.py", "--http-keepalive=0")


@pytest.mark.parametrize("target", ["/unread", "/chunks", "/empty", "/status?code=204"])
@pytest.mark.parametrize("kind", ["http", "http-socket"])
def test_without_keepalive_each_answer_says_that_it_is_the_last(closing_sites, kind, target):
    with Connection(closing_sites[kind].address) as connection:
        answer = connection.request("GET", target)
        assert (answer.header("Connection") or "").lower() == "close"
        assert connection.closed_by_server()


@pytest.mark.parametrize("kind", ["http", "http-socket"])
def test_a_response_that_breaks_off_is_not_taken_for_a_whole_one(sites, kind):
    """An HTTP/1.0 client sees the end of a response without a length only by the end of the connection."""
    with Connection(sites[kind].address) as connection:
        connection.send(f"GET /fail-iterating?unsized=1&after=3&token=kind-{kind} HTTP/1.0\r\n\r\n".encode())
        with pytest.raises(ConnectionResetError):
            while connection.socket.recv(100_000):
                pass


@pytest.mark.parametrize("kind", ["http", "http-socket"])
def test_files_that_cannot_be_made_are_told_as_503(serve, tmp_path, kind):
    gone = tmp_path / "gone"
    gone.mkdir()
    site = every_kind(
        serve, "--wsgi-file", "probe.py", "--post-buffering", 1_000, env={"TMPDIR": str(gone)},
    )[kind]
    assert site.request("POST", "/digest", body=b"x" * 2_000).status == 200
    gone.rmdir()
    answer = site.request("POST", "/digest", body=b"x" * 2_000)
    assert (answer.status, answer.header("Connection")) == (503, "close")
    site.server.logged("TMPDIR")
    assert site.request("POST", "/digest", body=b"x" * 500).status == 200


@pytest.mark.parametrize("kind", ["http", "http-socket"])
def test_the_directory_for_files_is_the_same_at_both(serve, tmp_path, stats_at, kind):
    site = every_kind(
        serve, "--wsgi-file", "probe.py", "--post-buffering", 1_000, "--stats", stats_at, env={"TMPDIR": str(tmp_path)},
    )[kind]
    site.server.wait_workers(1)
    with Connection(site.address) as connection:
        connection.send(head("POST", "/digest", {"Content-Length": "5000"}) + b"x" * 4_000)

        def is_there() -> bool:
            files = [link for process in site.server.processes() for link in process.open_files()]
            return any(link.startswith(f"{tmp_path}/") and "deleted" in link for link in files)

        until(is_there, "the beginning of the body is in a file without a name in TMPDIR", context=site.server.log)
        connection.send(b"x" * 1_000)
        assert connection.response().status == 200
