"""Files that are served without the application."""

from __future__ import annotations

import pytest

from rig import http
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
    site = every_kind(serve, "--wsgi-file", "worklife.py", "--static-map", f"/static={files}")[kind]
    answer = site.get("/static/film.mp4")
    assert (answer.status, answer.header("Accept-Ranges"), answer.body) == (200, "bytes", whole)
    modified = answer.header("Last-Modified")
    for wanted, first, last in [
        ("bytes=0-9", 0, 9), ("bytes=300-300", 300, 300), ("bytes=1048000-", 1048000, 1048575),
        ("bytes=-5", 1048571, 1048575), ("bytes=10-99999999", 10, 1048575), ("bytes=-99999999", 0, 1048575),
    ]:
        part = site.get("/static/film.mp4", {"Range": wanted, "If-Range": modified})
        assert (part.status, part.body) == (206, whole[first:last + 1]), wanted
        assert part.header("Content-Range") == f"bytes {first}-{last}/1048576"
        assert part.header("Content-Type") == "video/mp4"
    for wanted in ("bytes=1048576-", "bytes=-0"):
        beyond = site.get("/static/film.mp4", {"Range": wanted})
        assert (beyond.status, beyond.body, beyond.header("Content-Range")) == (416, b"", "bytes */1048576"), wanted
    for headers in (
        {"Range": "bytes=0-9,20-29"}, {"Range": "bytes=9-0"}, {"Range": "bytes=-"}, {"Range": "lines=0-9"},
        {"Range": "bytes=0-9", "If-Range": "Sat, 01 Jan 2000 00:00:00 GMT"}, {"Range": "bytes=0-9", "If-Range": '"tag"'},
    ):
        assert (site.get("/static/film.mp4", headers).status, len(site.get("/static/film.mp4", headers).body)) == (200, 1048576)


def test_a_file_that_has_not_changed_is_not_sent_again(serve, address, files):
    serve("--http-socket", address, "--wsgi-file", "worklife.py", "--check-static", files)
    since = {"If-Modified-Since": http.get(address, "/css/site.css").header("Last-Modified")}
    assert http.get(address, "/css/site.css", since).status == 304
    # A time is not asked for by who has a tag, of whatever server.
    assert http.get(address, "/css/site.css", {**since, "If-None-Match": '"tag"'}).status == 200
    assert http.get(address, "/css/site.css", {"If-Modified-Since": "Sat, 01 Jan 2000 00:00:00 GMT"}).status == 200
    assert http.get(address, "/css/site.css", {"If-Modified-Since": "yesterday"}).status == 200


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
