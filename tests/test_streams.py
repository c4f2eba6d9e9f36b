"""Responses in many pieces: small ones may be gathered, but none is lost, late or out of order."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from rig import http, stats
from rig.http import Connection
from rig.site import KINDS, every_kind

SOURCE = Path(__file__).parent / "apps" / "streams.py"


def pieces(seed: int) -> bytes:
    spec = importlib.util.spec_from_file_location("streams_app", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return b"".join(piece for piece, _ in module.pieces(seed))


@pytest.fixture(scope="module", params=[1, 4], ids=["one-thread", "threads"])
def stream_sites(request, serve_module):
    return every_kind(serve_module, "--wsgi-file", "streams.py", "--threads", request.param)


@pytest.fixture(params=KINDS)
def stream(request, stream_sites):
    return stream_sites[request.param]


@pytest.mark.parametrize("how", ["chunks", "length", "writes"])
def test_pieces_of_any_size_arrive_whole_and_in_order(stream, how):
    for seed in range(12):
        answer = stream.get(f"/some?seed={seed}&{how}=1")
        assert answer.status == 200
        assert answer.body == pieces(seed), f"seed {seed}"


@pytest.mark.parametrize("kind", ["http", "http-socket"])
def test_streams_follow_one_another_on_a_connection(stream_sites, kind):
    with Connection(stream_sites[kind].address) as connection:
        for seed in range(20):
            how = ["chunks", "length"][seed % 2]
            connection.send(http.head("GET", f"/some?seed={seed}&{how}=1"))
            assert connection.response().body == pieces(seed), f"seed {seed}"


def test_the_pieces_before_a_pause_arrive_in_it(stream, tmp_path):
    go, rounds = tmp_path / "go", 20
    with stream.open("GET", f"/pauses?rounds={rounds}&go={go}") as connection:
        received = b""
        for number in range(rounds):
            while b"(%d)" % number not in received:
                received += connection.read(1)
            (tmp_path / f"go-{number}").touch()
        connection.rest()


def test_the_application_is_told_that_the_client_went_away(stream, record):
    connection = stream.open("GET", f"/endless?record={record.path}")
    connection.read(5_000)
    connection.reset()
    assert record.wait() == ["closed"]


def test_a_client_that_leaves_with_all_of_it_is_no_error(serve, tmp_path, stats_at):
    site = every_kind(serve, "--wsgi-file", "streams.py", "--stats", stats_at)["http-socket"]
    with Connection(site.address) as connection:
        connection.send(http.head("GET", f"/closes?go={tmp_path / 'go'}"))
        assert connection.response().body == b"x" * 100
        connection.reset()
    (tmp_path / "go").touch()
    document = site.server.wait_stats(lambda document: stats.total(document, "requests") == 1, "the request is counted")
    assert document["workers"][0]["cores"][0]["write_errors"] == 0


@pytest.mark.parametrize("kind", ["http", "http-socket"])
def test_what_came_before_an_exception_arrives(stream_sites, kind):
    with stream_sites[kind].open("GET", "/fails") as connection:
        received = connection.rest()
    missing = [number for number in range(100) if b"%d," % number not in received]
    assert not missing and not received.endswith(b"0\r\n\r\n")


@pytest.mark.only_rwsgi(why="a child of uWSGI's sends to its parent's clients")
def test_a_fork_loses_nothing_and_sends_nothing_twice(stream):
    assert stream.get("/forks").body == b"".join(b"abcd%d " % number for number in range(20))


@pytest.mark.only_rwsgi(why="a child of uWSGI's sends to its parent's clients")
@pytest.mark.parametrize("stream_sites", [1], indirect=True, ids=["one-thread"])
def test_python_finds_no_second_thread_when_a_stream_forks(stream):
    # Python 3.12 and later look for one, and warn of it. Not by the warning: they also misread what the system says of a
    # process with blanks in its name.
    assert stream.get("/forks?threads=1").text.endswith("19 {1}")


@pytest.mark.only_rwsgi(why="uWSGI sends each piece by itself")
def test_what_the_application_sends_itself_keeps_its_place(stream_sites):
    with Connection(stream_sites["http-socket"].address) as connection:
        connection.send(b"GET /itself HTTP/1.0\r\n\r\n")
        assert connection.rest().endswith(b"\r\n\r\nabcdefgh")
