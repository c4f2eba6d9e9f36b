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


def test_a_head_has_no_body(serve, address, files):
    serve("--http-socket", address, "--wsgi-file", "worklife.py", "--static-map", f"/static={files}")
    answer = http.head_of(address, "/static/css/site.css")
    assert (answer.status, answer.header("Content-Length")) == (200, "160000")


def test_check_static_looks_for_the_path_itself(serve, address, files):
    serve("--http-socket", address, "--wsgi-file", "worklife.py", "--check-static", files)
    assert http.get(address, "/css/site.css").body.startswith(b"body")
    assert http.get(address, "/css/other.css").body.isdigit()
