"""wsgi.file_wrapper: files, parts of files and what only looks like one, on every kind of socket."""

from __future__ import annotations

import hashlib
import os

import pytest

from rig.http import Connection, head_of


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A file of a length that no buffer divides."""
    path = tmp_path_factory.mktemp("data") / "file"
    path.write_bytes(b"first line\n" + os.urandom(3_000_017))
    return path


def test_a_file_is_sent_whole_and_closed(site, data, record):
    answer = site.get(f"/file?file={data}&record={record.path}")
    assert (answer.status, answer.body) == (200, data.read_bytes())
    assert record.wait() == ["closed"]


@pytest.mark.only_rwsgi(why="uWSGI sends files from their start")
def test_a_file_is_sent_from_where_it_stands(site, data):
    assert site.get(f"/file?file={data}&from=1000001").body == data.read_bytes()[1000001:]


@pytest.mark.only_rwsgi(why="uWSGI sends files from their start")
def test_what_python_has_read_ahead_is_not_lost(site, data):
    assert site.get(f"/buffered-file?file={data}").body == data.read_bytes()[len(b"first line\n") :]


@pytest.mark.only_rwsgi(why="uWSGI sends the whole file")
def test_no_more_is_sent_than_content_length_says(http_site, data):
    with Connection(http_site.address) as connection:
        answer = connection.request("GET", f"/file?file={data}&from=5&length=70000")
        assert answer.body == data.read_bytes()[5:70005]
        # The server may close after such an answer; what it must not do is to send the rest of the file.
        try:
            assert connection.request("GET", "/unread").body == b"not read"
        except ConnectionError:
            pass


@pytest.mark.only_rwsgi(why="uWSGI sends the whole file")
def test_a_part_of_a_file_leaves_the_connection_usable(http_site, data):
    size = data.stat().st_size
    with Connection(http_site.address) as connection:
        for start in (0, size - 10, size):
            answer = connection.request("GET", f"/file?file={data}&from={start}&length={size - start}")
            assert answer.body == data.read_bytes()[start:]


def test_an_empty_file_is_an_empty_body(site, tmp_path):
    (tmp_path / "empty").touch()
    assert site.get(f"/file?file={tmp_path}/empty").body == b""


def test_an_object_that_can_only_read_is_sent_and_closed(site, record):
    assert site.get(f"/file-like?record={record.path}").body == b"0123456789" * 10000
    assert record.wait() == ["closed"]


@pytest.mark.only_rwsgi(why="uWSGI sends nothing of a pipe")
def test_a_pipe_is_sent(site):
    assert site.get("/pipe").body == b"through a pipe"


def test_a_wrapper_can_be_iterated(site, data):
    assert site.get(f"/file-iterated?file={data}").body == data.read_bytes()


@pytest.mark.only_rwsgi(why="uWSGI sends a body to HEAD")
def test_head_sends_nothing_of_a_file(http_site, data, record):
    answer = head_of(http_site.address, f"/file?file={data}&length={data.stat().st_size}&record={record.path}")
    assert answer.header("Content-Length") == str(data.stat().st_size)
    assert record.wait() == ["closed"]


def test_a_large_file_arrives_whole(site, tmp_path):
    block, count = os.urandom(1_000_003), 100
    with (tmp_path / "large").open("wb") as file:
        for _ in range(count):
            file.write(block)
    answer = site.get(f"/file?file={tmp_path}/large&length={len(block) * count}")
    assert hashlib.sha256(answer.body).digest() == hashlib.sha256(block * count).digest()


def test_a_client_that_leaves_during_a_file_closes_it(site, tmp_path, record):
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(200_000_000)
    connection = site.open("GET", f"/file?file={tmp_path}/sparse&record={record.path}")
    connection.read(100_000)
    connection.reset()
    assert record.wait() == ["closed"]
