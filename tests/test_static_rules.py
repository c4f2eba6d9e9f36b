"""What is sent of static files: compressed versions, Expires, index files, types, and who sends them."""

from __future__ import annotations

import gzip
import os
import time
from email.utils import parsedate_to_datetime

import pytest

from rig import http, uwsgi
# A fixed time in the past, so that what is counted from it is known.
MODIFIED = 1_000_000_000


@pytest.fixture
def files(tmp_path):
    """A directory of files with compressed versions, and a secret beside it."""
    root = tmp_path / "files"
    (root / "css").mkdir(parents=True)
    for name in ("css/site.css", "app.js", "index.html", "css/index.html", "source.py"):
        (root / name).write_text(name)
    for name in ("css/site.css", "app.js"):
        (root / f"{name}.gz").write_bytes(gzip.compress(name.encode() * 10))
    (root / "app.js.br").write_bytes(b"brotli")
    (tmp_path / "secret.gz").write_text("secret")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "index.html").write_text("secret")
    for path in root.rglob("*"):
        os.utime(path, (MODIFIED, MODIFIED))
    types = tmp_path / "mime.types"
    types.write_text("# types\ntext/css\tcss\ntext/javascript\tjs mjs\ntext/html html\ntext/x-python\tpy\n")
    return root


@pytest.fixture
def site(serve, address, files):
    """Starts a server with these options, and asks it for paths."""

    def start(*options):
        arguments = ("--wsgi-file", "worklife.py", "--mimefile", files.parent / "mime.types")
        serve("--http-socket", address, "--master", *arguments, *options)
        return lambda path, headers=None: http.get(address, path, headers)

    return start


GZIP = {"Accept-Encoding": "gzip, deflate"}


def is_application(answer):
    return answer.body.isdigit()


def test_a_compressed_version_is_sent_to_clients_that_take_it(site, files):
    get = site("--static-map", f"/static={files}", "--static-gzip-all")
    compressed = get("/static/css/site.css", GZIP)
    assert compressed.header("Content-Encoding") == "gzip"
    assert gzip.decompress(compressed.body) == b"css/site.css" * 10
    assert compressed.header("Content-Type") == "text/css"
    assert compressed.header("Content-Length") == str(len(compressed.body))
    plain = get("/static/css/site.css")
    assert (plain.body, plain.header("Content-Encoding")) == (b"css/site.css", None)
    assert get("/static/app.js", {"Accept-Encoding": "gzip, br"}).header("Content-Encoding") == "br"
    assert get("/static/index.html", GZIP).body == b"index.html", "it has none"


@pytest.mark.only_rwsgi(why="uWSGI says nothing of other versions, and sends gzip to who refuses it")
def test_a_compressed_version_is_another_to_caches(site, files):
    get = site("--static-map", f"/static={files}", "--static-gzip-all")
    compressed, plain = get("/static/css/site.css", GZIP), get("/static/css/site.css")
    assert [answer.header("Vary") for answer in (compressed, plain)] == ["Accept-Encoding"] * 2
    assert compressed.header("ETag") != plain.header("ETag")
    assert get("/static/css/site.css", {**GZIP, "If-None-Match": compressed.header("ETag")}).status == 304
    assert get("/static/css/site.css", {"Accept-Encoding": "gzip;q=0"}).body == b"css/site.css"
    part = get("/static/css/site.css", {**GZIP, "Range": "bytes=0-1"})
    assert (part.status, part.body, part.header("Content-Encoding")) == (206, compressed.body[:2], "gzip")


@pytest.mark.parametrize(("option", "value"), [("--static-gzip-dir", "{}/css"), ("--static-gzip-ext", ".css"),
                                               ("--static-gzip-prefix", "{}/css"), ("--static-gzip-suffix", ".css")])
def test_which_files_are_compressed_is_said_by_their_paths(site, files, option, value):
    get = site("--check-static", files, option, value.format(files))
    assert get("/css/site.css", GZIP).header("Content-Encoding") == "gzip"
    assert get("/app.js", GZIP).header("Content-Encoding") is None


@pytest.mark.only_rwsgi(why="uWSGI opens whatever is at that name")
def test_no_compressed_version_leads_out_of_the_directory(site, files):
    (files / "secret").write_text("public")
    (files / "secret.gz").symlink_to(files.parent / "secret.gz")
    (files / "linked").symlink_to(files.parent / "secret")
    get = site("--static-map", f"/static={files}", "--static-map", f"/one={files}/secret", "--static-gzip-all", "--static-index", "index.html")
    assert get("/static/secret", GZIP).body == b"public"
    assert get("/one", GZIP).body == b"public"
    assert is_application(get("/static/linked/", GZIP)), "nor does an index"
    assert is_application(get("/static/linked", GZIP))
    assert is_application(get("/static/..", GZIP))


def expires_of(answer):
    return parsedate_to_datetime(answer.header("Expires")).timestamp()


def test_files_of_a_type_expire(site, files):
    get = site(
        "--static-map", f"/static={files}", "--static-expires-type", "text/css=3600", "--static-expires-type-mtime",
        "text/javascript=60",
    )
    before = int(time.time())
    answer = get("/static/css/site.css")
    assert before + 3600 <= expires_of(answer) <= time.time() + 3600
    assert answer.header("Expires").endswith(" GMT")
    assert expires_of(get("/static/app.js")) == MODIFIED + 60
    assert get("/static/index.html").header("Expires") is None


@pytest.mark.only_rwsgi(why="the uWSGI of the tests has no regular expressions")
def test_files_expire_by_pattern(site, files):
    get = site(
        "--static-map", f"/static={files}", "--static-expires", r"\.css$ 100", "--static-expires-mtime", "/css/.* 200",
        "--static-expires-uri-mtime", r"\?v=\d+ 300", "--static-expires-path-info-mtime", "^/static/app 400",
        "--static-gzip", r"\.css$",
    )
    assert abs(expires_of(get("/static/css/site.css")) - 100 - time.time()) < 30
    assert expires_of(get("/static/css/index.html")) == MODIFIED + 200
    assert expires_of(get("/static/index.html?v=12")) == MODIFIED + 300
    assert expires_of(get("/static/app.js")) == MODIFIED + 400
    assert get("/static/source.py").header("Expires") is None
    assert get("/static/css/site.css", GZIP).header("Content-Encoding") == "gzip"
    assert get("/static/app.js", GZIP).header("Content-Encoding") is None


def test_a_directory_has_an_index(site, files):
    get = site("--check-static", files, "--static-index", "missing.html", "--static-index", "index.html")
    for path, expected in [("/", b"index.html"), ("/css/", b"css/index.html"), ("/css", b"css/index.html")]:
        answer = get(path)
        assert (answer.body, answer.header("Content-Type")) == (expected, "text/html"), path
    assert is_application(get("/none/"))


def test_a_mapped_directory_has_an_index_at_its_prefix(site, files):
    get = site("--static-map", f"/static={files}", "--static-index", "index.html")
    assert get("/static/").body == b"index.html"
    assert get("/static").body == b"index.html"


def test_what_is_left_to_the_application_by_its_end(site, files):
    (files / "link.txt").symlink_to("source.py")
    get = site("--check-static", files, "--static-skip-ext", ".py")
    assert is_application(get("/source.py"))
    assert is_application(get("/link.txt")), "whatever the name that leads there"
    assert get("/app.js").body == b"app.js"


def test_directories_are_asked_in_order(site, files):
    """Those of check-static first, then the others as they are written."""
    second = files.parent / "second"
    (second / "css").mkdir(parents=True)
    for name in ("site.css", "app.js", "css/site.css", "more.css"):
        (second / name).write_text("second")
    get = site("--static-map", f"/css={files}/css", "--static-map", f"/css/more={second}", "--static-map", f"/app.js={second}/app.js", "--check-static", files)
    assert get("/app.js").body == b"app.js"
    (files / "css" / "more").mkdir()
    (files / "css" / "more" / "site.css").write_text("first")
    assert get("/css/more/site.css").body == b"first"
    assert get("/css/more/more.css").body == b"second"


@pytest.mark.parametrize(("mode", "header"), [("nginx", "X-Accel-Redirect"), ("x-sendfile", "X-Sendfile")])
def test_a_proxy_is_told_which_file_to_send(site, files, mode, header):
    get = site("--static-map", f"/static={files}", "--file-serve-mode", mode)
    answer = get("/static/css/site.css")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.header(header) == str(files / "css" / "site.css")
    assert answer.header("Content-Type") == "text/css"
    assert answer.header("Last-Modified") == "Sun, 09 Sep 2001 01:46:40 GMT"
    assert answer.header("Content-Length") in (None, "0")


def test_a_proxy_names_the_directory(serve, address, files):
    serve("--socket", address, "--master", "--wsgi-file", "worklife.py", "--check-static-docroot")

    def get(path, root):
        variables = [pair for pair in uwsgi.variables("GET", path) if pair[0] != "DOCUMENT_ROOT"]
        with http.Connection(address) as connection:
            connection.send(uwsgi.packet([*variables, ("DOCUMENT_ROOT", str(root))]))
            return connection.response()

    assert get("/css/site.css", files).body == b"css/site.css"
    assert get("/css/site.css", files / "css").body.isdigit()
    assert get("/css/../../secret.gz", files).body.isdigit()


def test_static_files_are_looked_for_without_the_prefix_of_a_mounted_application(serve, address, files):
    serve(
        "--http-socket", address, "--master", "--manage-script-name", "--mount", "/app=worklife.py", "--static-map",
        f"/static={files}",
    )
    assert http.get(address, "/app/static/app.js").body == b"app.js"
    assert http.get(address, "/static/app.js").body == b"app.js"


@pytest.mark.only_rwsgi(why="a proxy, and not a client, sends this variable")
def test_a_client_names_no_directory(serve, address, files):
    serve("--http-socket", address, "--master", "--wsgi-file", "worklife.py", "--check-static-docroot")
    assert http.get(address, "/app.js", {"Document-Root": str(files)}).body.isdigit()
