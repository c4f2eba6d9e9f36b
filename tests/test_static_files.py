"""Files that are served without the application."""

from __future__ import annotations

import os

import pytest

from rig import http, uwsgi
from rig.http import Connection
from rig.site import KINDS, every_kind

pytestmark = pytest.mark.only_rwsgi(why="uWSGI answers some of these from elsewhere")


@pytest.fixture
def files(tmp_path):
    """A directory of files, a secret beside it, and a link to that inside."""
    root = tmp_path / "files"
    (root / "css").mkdir(parents=True)
    (root / "css" / "site.css").write_text("body {}\n" * 20_000)
    (root / "caf\u00e9.txt").write_text("coffee")
    (root / "data.tar.gz").write_bytes(b"\x1f\x8b")
    (tmp_path / "secret.txt").write_text("secret")
    (root / "link.txt").symlink_to(tmp_path / "secret.txt")
    return root


@pytest.mark.parametrize("kind", KINDS)
def test_a_mapped_file_is_sent_and_all_else_is_the_application_s(serve, files, kind):
    site = every_kind(serve, "--wsgi-file", "worklife.py", "--static-map", f"/static={files}")[kind]
    answer = site.get("/static/css/site.css")
    assert answer.body == b"body {}\n" * 20_000
    assert answer.header("Content-Type") == "text/css"
    assert answer.header("Content-Length") == str(len(answer.body))
    again = site.get("/static/css/site.css", {"If-Modified-Since": answer.header("Last-Modified")})
    assert (again.status, again.body) == (304, b"")
    if kind != "socket":
        # There it is the proxy that decodes the path.
        assert site.get("/static/caf%C3%A9.txt").body == b"coffee"
    assert site.get("/static/data.tar.gz").header("Content-Type") == "application/octet-stream"
    for path in ("/", "/static", "/static/", "/static/css", "/static/missing", "/staticcss/site.css", "/css/site.css"):
        assert site.get(path).body.isdigit(), path
    assert site.request("POST", "/static/css/site.css", {"Content-Length": "0"}).body.isdigit()


@pytest.mark.parametrize("path", ["/static/../secret.txt", "/static/%2e%2e/secret.txt", "/static/link.txt", "/static/%00",
                                  "/static//etc/passwd", "/static/css/../../secret.txt"])
def test_nothing_leads_out_of_the_directory(serve, address, files, path):
    serve("--http-socket", address, "--wsgi-file", "worklife.py", "--static-map", f"/static={files}")
    answer = http.get(address, path)
    assert b"secret" not in answer.body
    assert b"root:" not in answer.body


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_of_a_file_is_sent_to_whoever_asks_for_one(serve, files, kind):
    whole = bytes(range(256)) * 4096
    (files / "film.mp4").write_bytes(whole)
    # A date of whole seconds names one state of a file only once its second is over.
    os.utime(files / "film.mp4", (1_000_000_000, 1_000_000_000))
    site = every_kind(serve, "--wsgi-file", "worklife.py", "--static-map", f"/static={files}")[kind]
    answer = site.get("/static/film.mp4")
    assert (answer.status, answer.header("Accept-Ranges"), answer.body) == (200, "bytes", whole)
    modified, tag = answer.header("Last-Modified"), answer.header("ETag")
    for wanted, first, last in [
        ("bytes=0-9", 0, 9), ("bytes=300-300", 300, 300), ("bytes=1048000-", 1048000, 1048575),
        ("bytes=-5", 1048571, 1048575), ("bytes=10-99999999", 10, 1048575), ("bytes=-99999999", 0, 1048575),
        ("bytes=10-" + "9" * 5_000, 10, 1048575), ("bytes=-" + "9" * 5_000, 0, 1048575),
    ]:
        for validator in (modified, tag):
            part = site.get("/static/film.mp4", {"Range": wanted, "If-Range": validator})
            assert (part.status, part.body) == (206, whole[first:last + 1]), wanted
        assert part.header("Content-Range") == f"bytes {first}-{last}/1048576"
        assert part.header("Content-Type") == "video/mp4"
    for wanted in ("bytes=1048576-", "bytes=-0", "bytes=" + "9" * 5_000 + "-"):
        beyond = site.get("/static/film.mp4", {"Range": wanted})
        assert (beyond.status, beyond.body, beyond.header("Content-Range")) == (416, b"", "bytes */1048576"), wanted
    for headers in (
        {"Range": "bytes=0-9,20-29"}, {"Range": "bytes=9-0"}, {"Range": "bytes=-"}, {"Range": "lines=0-9"},
        {"Range": "bytes=0-9", "If-Range": "Sat, 01 Jan 2000 00:00:00 GMT"}, {"Range": "bytes=0-9", "If-Range": '"tag"'},
        {"Range": "bytes=0-9", "If-Range": f"W/{tag}"}, {"Range": "bytes=" + "9" * 5_000 + "0-" + "9" * 5_000},
    ):
        assert (site.get("/static/film.mp4", headers).status, len(site.get("/static/film.mp4", headers).body)) == (200, 1048576)


def test_a_file_that_has_not_changed_is_not_sent_again(serve, address, files):
    serve("--http-socket", address, "--wsgi-file", "worklife.py", "--check-static", files)
    since = {"If-Modified-Since": http.get(address, "/css/site.css").header("Last-Modified")}
    assert http.get(address, "/css/site.css", since).status == 304
    # A time is not asked for by who has a tag, of whatever server.
    assert http.get(address, "/css/site.css", {**since, "If-None-Match": '"tag"'}).status == 200
    assert http.get(address, "/css/site.css", {"If-Modified-Since": "Sat, 01 Jan 2000 00:00:00 GMT"}).status == 200
    for date in ("yesterday", "", "Sun, 06 Nov 99999 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 +9999",
                 "Sat, 01 Jan 0001 00:00:00 +1200", "Fri, 31 Dec 9999 23:59:59 -2359", "Mon, 99 Foo 2000 99:99:99 GMT"):
        assert http.get(address, "/css/site.css", {"If-Modified-Since": date}).status == 200, date


def test_a_head_has_no_body(serve, address, files):
    serve("--http-socket", address, "--wsgi-file", "worklife.py", "--static-map", f"/static={files}")
    answer = http.head_of(address, "/static/css/site.css")
    assert (answer.status, answer.header("Content-Length")) == (200, "160000")


def test_static_map2_has_the_prefix_below_the_directory(serve, address, files):
    serve("--http-socket", address, "--wsgi-file", "worklife.py", "--static-map2", f"/css={files}")
    assert http.get(address, "/css/site.css").body.startswith(b"body")
    assert http.get(address, "/data.tar.gz").body.isdigit()


def test_check_static_looks_for_the_path_itself(serve, address, files):
    serve("--http-socket", address, "--wsgi-file", "worklife.py", "--check-static", files)
    assert http.get(address, "/css/site.css").body.startswith(b"body")
    assert http.get(address, "/css/other.css").body.isdigit()


@pytest.mark.parametrize("kind", KINDS)
def test_conditions_are_judged_in_the_standard_s_order(serve, files, kind):
    site = every_kind(serve, "--wsgi-file", "worklife.py", "--static-map", f"/static={files}")[kind]
    path, before, after = "/static/css/site.css", "Sat, 01 Jan 2000 00:00:00 GMT", "Sun, 09 Sep 2001 01:46:40 GMT"
    os.utime(files / "css" / "site.css", (1_000_000_000, 1_000_000_000))
    whole = site.get(path)
    tag, modified = whole.header("ETag"), whole.header("Last-Modified")
    assert tag.startswith('"') and modified == after
    for status, headers in [
        (304, {"If-None-Match": tag}), (304, {"If-None-Match": f'"a", W/{tag}'}), (304, {"If-None-Match": "*"}),
        (304, {"If-None-Match": tag, "If-Modified-Since": before}), (200, {"If-None-Match": '"a"', "If-Modified-Since": after}),
        (200, {"If-None-Match": tag.strip('"')}), (304, {"If-None-Match": tag, "Range": "bytes=0-9"}),
        (200, {"If-Match": tag}), (200, {"If-Match": "*"}), (412, {"If-Match": '"a"'}), (412, {"If-Match": f"W/{tag}"}),
        (412, {"If-Match": '"a"', "If-None-Match": tag}), (304, {"If-Match": tag, "If-None-Match": tag}),
        (200, {"If-Match": tag, "If-Unmodified-Since": before}), (412, {"If-Unmodified-Since": before}),
        (200, {"If-Unmodified-Since": after}), (200, {"If-Unmodified-Since": "yesterday"}),
        (412, {"If-Unmodified-Since": before, "Range": "bytes=0-9"}), (206, {"If-Unmodified-Since": after, "Range": "bytes=0-9"}),
    ]:
        for method in ("GET", "HEAD"):
            answer = site.request(method, path, headers)
            expected = 200 if method == "HEAD" and status == 206 else status
            assert (answer.status, answer.reason[:1].isupper()) == (expected, True), (method, headers)
            assert answer.body == (whole.body[:{200: None, 206: 10}.get(status, 0)] if method == "GET" else b"")
            if status != 412:
                assert (answer.header("ETag"), answer.header("Last-Modified")) == (tag, modified)
    (files / "css" / "site.css").write_text("other {}")
    os.utime(files / "css" / "site.css", (1_000_000_000, 1_000_000_000))
    assert site.get(path, {"If-None-Match": tag}).body == b"other {}"


def test_a_change_within_a_second_is_another_tag(serve, address, files):
    serve("--http-socket", address, "--wsgi-file", "worklife.py", "--check-static", files)
    tags = []
    for nanoseconds in (5, 6):
        os.utime(files / "css" / "site.css", ns=(0, 1_000_000_000_000_000_000 + nanoseconds))
        tags.append(http.get(address, "/css/site.css").header("ETag"))
    assert tags[0] != tags[1]


def test_an_empty_file_has_no_part(serve, address, files):
    (files / "empty.txt").write_bytes(b"")
    serve("--http-socket", address, "--wsgi-file", "worklife.py", "--check-static", files)
    for wanted, status in [("bytes=0-", 416), ("bytes=-5", 200), ("bytes=-0", 416)]:
        answer = http.get(address, "/empty.txt", {"Range": wanted})
        assert (answer.status, answer.body) == (status, b""), wanted


def test_what_is_no_file_is_the_application_s(serve, address, files):
    os.mkfifo(files / "pipe")
    serve("--http-socket", address, "--wsgi-file", "worklife.py", "--check-static", files)
    for path in ("/pipe", "/css", "/css/", "/" + "x" * 300, "/" + "x/" * 3_000):
        assert http.get(address, path).body.isdigit(), path


def test_a_single_file_is_mapped_to_a_path(serve, address, files):
    serve("--http-socket", address, "--wsgi-file", "worklife.py", "--static-map", f"/favicon.ico={files}/css/site.css")
    assert http.get(address, "/favicon.ico").body.startswith(b"body")
    assert http.get(address, "/favicon.ico/x").body.isdigit()


@pytest.mark.parametrize("kind", ["http-socket", "socket"])
def test_a_file_that_becomes_shorter_while_it_is_sent_is_no_whole_answer(serve, files, kind):
    size = 400_000_000
    (files / "large").touch()
    os.truncate(files / "large", size)
    site = every_kind(serve, "--wsgi-file", "worklife.py", "--check-static", files)[kind]
    with Connection(site.address) as connection:
        if kind == "socket":
            connection.send(uwsgi.packet(uwsgi.variables("GET", "/large")))
        else:
            connection.send(b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        received = len(connection.socket.recv(1))
        # More than the sockets hold.
        os.truncate(files / "large", 1000)
        while data := connection.socket.recv(1_000_000):
            received += len(data)
    assert 0 < received < size
    assert site.get("/").body.isdigit()


def test_the_name_of_a_file_says_what_it_is(serve, address, files):
    """Of a single file its own, and not the path that it is mapped to."""
    (files / "[page].css").write_text("brackets")
    (files / "a:b.css").write_text("colon")
    arguments = ("--check-static", files, "--static-map", f"/style={files}/css/site.css", "--static-map", f"/a.css={files}/data.tar.gz")
    serve("--http-socket", address, "--wsgi-file", "worklife.py", *arguments)
    for path, expected in [
        ("/style", "text/css"), ("/a.css", "application/octet-stream"), ("/a:b.css", "text/css"),
        # After two slashes a URL has a host, and this one is malformed.
        ("/%5Bpage%5D.css", "text/css"), ("//%5Bpage%5D.css", "text/css"),
    ]:
        answer = http.get(address, path)
        assert (answer.status, answer.header("Content-Type")) == (200, expected), path


def test_a_path_of_a_uwsgi_packet_leads_nowhere_else(serve, address, files):
    serve("--socket", address, "--wsgi-file", "worklife.py", "--check-static", files)
    assert uwsgi.get(address, "/css/site.css").body.startswith(b"body")
    for path in ("/../secret.txt", "/css/../../secret.txt", "/css/../css/site.css", "../secret.txt", "//css/../../secret.txt", "/\0"):
        assert uwsgi.get(address, path).body.isdigit(), path
