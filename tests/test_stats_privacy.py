"""Who watches a server sees how it does, and not the secrets of its clients: in the stats, in the log, in recordings."""

from __future__ import annotations

import gzip
import json
import os
import signal
import stat
import subprocess

import pytest

from rig import http, stats, uwsgi
from rig.addresses import connect, tcp
from rig.http import Connection, head
from rig.server import Program, Servers
from rig.site import KINDS, every_kind
from rig.waiting import until

OF_RWSGI = pytest.mark.only_rwsgi(why="uWSGI shows everything")

# Each has a value of its own, so that what leaks is named.
HEADERS = {
    "Cookie": "sid=hidden-cookie",
    "Authorization": "Bearer hidden-authorization",
    "Proxy-Authorization": "Basic hidden-proxy",
    "X-Api-Key": "hidden-key",
    "X-Amz-Security-Token": "hidden-token",
    "X-Hub-Secret": "hidden-secret",
    "X-Client-Cert": "hidden-cert",
    "X-Passphrase": "hidden-pass",
    "X-Session-Id": "hidden-session",
    "X-CSRF": "hidden-csrf",
    "Referer": "https://user:hidden-userinfo@example.org/from?code=hidden-referer&state=hidden-state",
    "User-Agent": "shown-agent",
}
QUERY = "password=hidden-query&user=hidden-user&hidden-bare"


def held(site, record, go, query: str = QUERY) -> http.Connection:
    """A request that the application holds until `go` is there."""
    connection = site.open("GET", f"/slow?{query}&go={go}&record={record.path}", HEADERS)
    record.wait()
    return connection


@OF_RWSGI
@pytest.mark.parametrize("kind", KINDS)
def test_a_request_in_progress_gives_no_secret_away(serve, stats_at, tmp_path, record, kind):
    site = every_kind(serve, "--wsgi-file", "probe.py", "--stats", stats_at)[kind]
    with held(site, record, tmp_path / "go") as connection:
        document = site.server.stats()
        (tmp_path / "go").touch()
        assert connection.response().status == 200
    [core] = [core for worker in document["workers"] for core in worker["cores"] if core["in_request"]]
    assert "hidden" not in json.dumps(document)
    names = "password=…&user=…&…&go=…&record=…"
    assert f"QUERY_STRING={names}" in core["vars"]
    assert f"REQUEST_URI=/slow?{names}" in core["vars"]
    assert core["req_info"]["uri"] == f"/slow?{names}"
    assert "HTTP_REFERER=https://…@example.org/from?code=…&state=…" in core["vars"]
    assert "HTTP_USER_AGENT=shown-agent" in core["vars"]
    assert any(var.startswith("REMOTE_ADDR=") for var in core["vars"])


@OF_RWSGI
def test_what_a_proxy_found_out_of_a_client_is_kept_back_as_well(serve, stats_at, tmp_path, record):
    site = every_kind(serve, "--wsgi-file", "probe.py", "--stats", stats_at)["socket"]
    more = [("SSL_CLIENT_CERT", "hidden-certificate"), ("remote_passwd", "hidden-passwd"), ("REMOTE_USER", "shown-user")]
    with Connection(site.address) as connection:
        target = f"/slow?go={tmp_path}/go&record={record.path}"
        connection.send(uwsgi.packet(uwsgi.variables("GET", target) + more))
        record.wait()
        text = json.dumps(site.server.stats())
        (tmp_path / "go").touch()
        assert connection.response().status == 200
    assert "hidden" not in text and "REMOTE_USER=shown-user" in text


@OF_RWSGI
@pytest.mark.parametrize(
    ("show", "seen", "unseen"),
    [
        ("headers", {"hidden-cookie", "hidden-key"}, {"hidden-query", "hidden-referer", "hidden-userinfo"}),
        ("queries", {"hidden-query", "hidden-referer"}, {"hidden-cookie", "hidden-key"}),
        ("all", {"hidden-cookie", "hidden-key", "hidden-query", "hidden-referer", "hidden-bare"}, set()),
    ],
)
def test_more_is_shown_when_asked_for(serve, stats_at, tmp_path, record, show, seen, unseen):
    options = ["--wsgi-file", "probe.py", "--stats", stats_at, "--show-request", show]
    site = every_kind(serve, *options)["http-socket"]
    with held(site, record, tmp_path / "go") as connection:
        text = json.dumps(site.server.stats())
        (tmp_path / "go").touch()
        assert connection.response().status == 200
    assert {word for word in seen if word not in text} == set()
    assert {word for word in unseen if word in text} == set()


@OF_RWSGI
@pytest.mark.parametrize("kind", KINDS)
def test_the_last_exception_names_the_request_without_its_query(serve, stats_at, kind):
    site = every_kind(serve, "--wsgi-file", "probe.py", "--stats", stats_at, "--disable-logging")[kind]
    assert site.get("/fail?token=of-the-message&password=hidden-query").status == 500
    raised = until(lambda: site.server.stats()["workers"][0]["last_exception"], "the exception is told")
    assert raised["request"] == "GET /fail?token=…&password=…"
    site.server.logged("ValueError")
    assert "hidden" not in site.server.log()


@OF_RWSGI
def test_urls_in_an_exception_s_text_are_shown_without_their_queries(serve, address, stats_at, tmp_path):
    (tmp_path / "app.py").write_text(
        "def application(environ, start_response):\n"
        "    raise OSError('cannot read https://bob:hidden-pw@shown.example/a?key=hidden-key: refused')\n"
    )
    server = serve("--http-socket", address, "--wsgi-file", "app.py", "--stats", stats_at, cwd=tmp_path)
    assert http.get(address, "/").status == 500
    raised = until(lambda: server.stats()["workers"][0]["last_exception"], "the exception is told")
    assert raised["message"] == "cannot read https://…@shown.example/a?key=… refused"


@OF_RWSGI
@pytest.mark.parametrize("kind", KINDS)
def test_the_log_of_a_killed_worker_names_its_request_without_its_query(serve, stats_at, tmp_path, record, kind):
    site = every_kind(serve, "--wsgi-file", "probe.py", "--stats", stats_at, "--disable-logging")[kind]
    with held(site, record, tmp_path / "go"):
        [worker] = site.server.stats()["workers"]
        os.kill(worker["pid"], signal.SIGKILL)
        site.server.logged(r"died: .*while it served GET /slow\?password=…&user=…&…&go=…")
        if kind == "http":
            site.server.logged(r"was lost while it held 'GET /slow\?password=…")
    assert "hidden" not in site.server.log()


@OF_RWSGI
def test_the_log_of_harakiri_names_the_request_without_its_query(serve, stats_at, tmp_path, record):
    options = ["--wsgi-file", "probe.py", "--stats", stats_at, "--disable-logging", "--harakiri", 1]
    site = every_kind(serve, *options)["http-socket"]
    with held(site, record, tmp_path / "go"):
        site.server.logged(r"harakiri: .* holds GET /slow\?password=…&user=…")
    assert "hidden" not in site.server.log()


@OF_RWSGI
def test_other_origins_are_let_in_only_when_asked_for(serve, address, stats_at):
    serve("--http-socket", address, "--wsgi-file", "probe.py", "--stats", stats_at, "--stats-http")
    assert http.get(stats_at, "/").header("Access-Control-Allow-Origin") is None
    assert http.get(stats_at, "/metrics").header("Access-Control-Allow-Origin") is None


@OF_RWSGI
@pytest.mark.parametrize("origin", ["*", "https://dashboard.example.org"])
def test_an_origin_that_was_named_is_let_in(serve, address, stats_at, origin):
    options = ["--wsgi-file", "probe.py", "--stats", stats_at, "--stats-http", "--stats-http-cors", origin]
    serve("--http-socket", address, *options)
    for path in ("/", "/metrics"):
        assert http.get(stats_at, path).header("Access-Control-Allow-Origin") == origin


@OF_RWSGI
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST:80", "its own", None])
def test_a_monitor_that_asks_for_this_machine_is_answered(serve, address, stats_at, host):
    serve("--http-socket", address, "--wsgi-file", "probe.py", "--stats", stats_at, "--stats-http")
    named = {} if host is None else {"Host": stats_at if host == "its own" else host}
    assert asked(stats_at, named).status == 200


@OF_RWSGI
@pytest.mark.parametrize("host", ["attacker.example", "attacker.example:9191", "localhost.attacker.example", "192.0.2.1", "", "a b"])
def test_a_page_whose_name_was_bound_to_this_machine_is_refused(serve, address, stats_at, host):
    serve("--http-socket", address, "--wsgi-file", "probe.py", "--stats", stats_at, "--stats-http")
    for path in ("/", "/metrics"):
        answer = asked(stats_at, {"Host": host}, path)
        assert answer.status == 421, answer
        assert b"workers" not in answer.body and b"rwsgi_" not in answer.body
        assert b"localhost" in answer.body, "it says what is answered"


@OF_RWSGI
def test_a_unix_socket_has_no_name_to_be_bound_to(serve, address, tmp_path):
    at = str(tmp_path / "stats")
    serve("--http-socket", address, "--wsgi-file", "probe.py", "--stats", at, "--stats-http")
    assert asked(at, {"Host": "anything"}).status == 200


def asked(address: str, headers: dict[str, str], path: str = "/") -> http.Response:
    """A GET with these headers alone."""
    lines = [f"GET {path} HTTP/1.0", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    with Connection(address) as connection:
        connection.send("\r\n".join(lines).encode())
        return connection.response()


@OF_RWSGI
@pytest.mark.parametrize("form", ["tcp", "unix", "http"])
def test_silent_clients_keep_no_monitor_out(serve, address, stats_at, tmp_path, form):
    at = str(tmp_path / "stats") if form == "unix" else stats_at
    option = ["--stats-http"] if form == "http" else []
    serve("--http-socket", address, "--wsgi-file", "probe.py", "--stats", at, *option)
    silent = [connect(at) for _ in range(200)]
    try:
        # Those that the server closes come again: two hundred stay connected, and say nothing.
        for number in range(50):
            document = stats.read_http(at) if form == "http" else stats.read(at)
            assert document["workers"][0]["id"] == 1
            for place in range(number % 5, len(silent), 5):
                silent[place].close()
                silent[place] = connect(at)
    finally:
        for each in silent:
            each.close()


@pytest.fixture
def plain_uwsgi(venv_bin, tmp_path, address, stats_at):
    """A real uWSGI that holds a request with secrets."""
    directory = tmp_path / "uwsgi"
    directory.mkdir()
    servers = Servers(Program(str(venv_bin / "uwsgi")), directory)
    servers("--http-socket", address, "--wsgi-file", "probe.py", "--master", "--stats", stats_at)
    go, entered = tmp_path / "go", tmp_path / "entered"
    with Connection(address) as connection:
        connection.send(head("GET", f"/slow?{QUERY}&go={go}&record={entered}", HEADERS))
        until(lambda: entered.exists() and entered.read_text(), "the request is held")
        until(lambda: "hidden-cookie" in json.dumps(stats.read(stats_at)), "uWSGI tells the secrets")
        yield stats_at
        go.touch()
        connection.response()
    servers.stop_all()


def test_rtop_neither_records_nor_writes_what_a_uwsgi_gives_away(plain_uwsgi, rtop, tmp_path):
    recording, page = tmp_path / "night.rtop", tmp_path / "page.html"
    for form in (["--batch"], ["--json"], ["--csv"], ["--html", str(page), "--batch"]):
        command = [rtop, plain_uwsgi, *form, "-n", "2", "--frequency", "0.1", "--record", str(recording)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert "hidden" not in done.stdout + done.stderr, form
        if form[0] in ("--json", "--csv"):
            assert "GET /slow?password=…&user=…&…" in done.stdout
    assert "hidden" not in page.read_text()
    lines = [json.loads(line) for line in gzip.decompress(recording.read_bytes()).splitlines()]
    assert "hidden" not in json.dumps(lines)
    [*_, document] = [line["document"] for line in lines if "document" in line]
    [core] = [core for worker in document["workers"] for core in worker["cores"] if core["in_request"]]
    assert "HTTP_USER_AGENT=shown-agent" in core["vars"], "what is no secret is recorded as it came"
    replayed = subprocess.run([rtop, "--replay", str(recording), "--json"], capture_output=True, text=True, timeout=60)
    assert replayed.returncode == 0, replayed.stderr
    assert "GET /slow?password=…&user=…&…" in replayed.stdout


def test_only_its_owner_reads_a_recording(serve, address, stats_at, rtop, tmp_path):
    serve("--http-socket", address, "--wsgi-file", "probe.py", "--master", "--stats", stats_at)
    recording = tmp_path / "night.rtop"
    command = [rtop, stats_at, "--batch", "-n", "2", "--frequency", "0.1", "--record", str(recording)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert stat.S_IMODE(recording.stat().st_mode) == 0o600
