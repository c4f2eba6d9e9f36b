"""The formats of the access log: uWSGI's variables say what they say there, and which requests have a line."""

from __future__ import annotations

import json
import re

import pytest

from rig import http, uwsgi
from rig.addresses import tcp
from rig.server import Program, Servers
from rig.waiting import until

OF_RWSGI = pytest.mark.only_rwsgi(why="it is a comparison with the real one, or an option of ours")

APP = """
import os, time
import uwsgi

def application(environ, start_response):
    path = environ["PATH_INFO"]
    environ["wsgi.input"].read()
    uwsgi.set_logvar("mine", "of " + path)
    status = {"/missing": "404 Not Found", "/broken": "503 Busy"}.get(path, "200 OK")
    body = b"" if path == "/empty" else b"x" * (5000 if path == "/big" else 100)
    if path == "/slow":
        time.sleep(6)
    start_response(status, [("Content-Type", "text/plain"), ("X-One", "1"), ("X-Two", "2")])
    if path == "/file":
        return environ["wsgi.file_wrapper"](open(__file__, "rb"))
    return [body]
"""

# Every variable of uWSGI.
EXACT = (
    "uri method user addr host proto uagent referer status rsize cl wid switches modifier1 modifier2 headers core werr rerr "
    "ioerr var.PATH_INFO var.QUERY_STRING var.HTTP_X_TRACE var.CONTENT_TYPE var.CONTENT_LENGTH var.REQUEST_METHOD var.NONE "
    "metric.none mine none vars"
).split()
# What differs from run to run, or because a head of ours has other headers: only its form is compared.
FORM = "hsize size epoch ctime time ltime ftime tmsecs tmicros micros msecs secs pid vsz rss vszM rssM pktsize".split()
FORMAT = "; ".join(f"{name}=%({name})" for name in EXACT + FORM)
HEADERS = {"User-Agent": "test/1", "Referer": "http://a/b", "X-Trace": "t-1", "X-Forwarded-For": "203.0.113.5, 10.1.1.1"}


@pytest.fixture
def both(program, venv_bin, tmp_path):
    """Starts the same in rwsgi and in the real uWSGI: `both(*arguments)` gives the two servers."""
    (tmp_path / "app.py").write_text(APP)
    peer = venv_bin / "uwsgi"
    if not peer.exists():
        pytest.skip("there is no real uWSGI")
    servers = []
    for name, each in (("ours", program), ("theirs", Program(str(peer)))):
        (tmp_path / name).mkdir()
        servers.append(Servers(each, tmp_path / name))

    def start(*arguments: object, ours: list[str] | None = None) -> list[Asked]:
        started = []
        for group in servers:
            at = {"http-socket": tcp(), "socket": tcp()}
            options = [part for kind, address in at.items() for part in (f"--{kind}", address)]
            own = [] if group.program.is_uwsgi else ours or []
            server = group("--master", *options, "--wsgi-file", "app.py", *arguments, *own, cwd=tmp_path)
            started.append(Asked(server, at))
        return started

    yield start
    for group in servers:
        group.stop_all()


class Asked:
    """A server, and lines about requests."""

    def __init__(self, server, at) -> None:
        self.server, self.at = server, at

    def request(self, kind: str, method: str, target: str, headers=None, body=None):
        client = uwsgi if kind == "socket" else http
        return client.request(self.at[kind], method, target, headers, body)

    def line(self, kind: str, method: str, target: str, headers=None, body=None) -> str:
        """The line about one request."""
        self.request(kind, method, target, headers, body)
        until(lambda: self.server.lines(target), f"a line about {target}", context=self.server.log)
        [line] = self.server.lines(target)
        return line


def form(text: str) -> str:
    """A text with every number and every name of a day and a month as one sign."""
    return re.sub(r"\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun|Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\b", "D", re.sub(r" ?\d+", "N", text))


@OF_RWSGI
@pytest.mark.parametrize("kind", ["http-socket", "socket"])
def test_every_variable_says_what_it_says_in_uwsgi(both, kind):
    ours, theirs = both("--log-format", FORMAT, "--log-date=%Y-%m", "--log-format-strftime", "--memory-report")
    for number, (method, path, headers, body) in enumerate(
        [
            ("GET", "/plain", HEADERS, None),
            ("GET", "/missing", {}, None),
            ("POST", "/post", {**HEADERS, "Content-Type": "text/x"}, b"sent"),
            ("GET", "/empty", HEADERS, None),
            ("GET", "/a%20b", HEADERS, None),
        ]
    ):
        target = f"{path}?number={number}."
        lines = [dict(part.split("=", 1) for part in asked.line(kind, method, target, headers, body).split("; ")) for asked in (ours, theirs)]
        for name in EXACT:
            assert lines[0][name] == lines[1][name], f"{name} of {method} {target}"
        for name in FORM:
            assert form(lines[0][name]) == form(lines[1][name]), f"{name} of {method} {target}"


@OF_RWSGI
@pytest.mark.parametrize("options", [[], ["--log-micros"], ["--log-x-forwarded-for", "--memory-report"]])
def test_the_format_uwsgi_is_the_line_of_uwsgi(both, options):
    stable = re.compile(r"\|app: .*?\} |GET \S+ => generated \d+ bytes|\(HTTP/1.1 200\) \d+ headers|\(1 switches on core 0\)")
    lines = [asked.line("socket", "GET", "/plain?a=b", HEADERS) for asked in both(*options, ours=["--access-log-format", "uwsgi"])]
    assert form(lines[0]) == form(lines[1])
    assert stable.findall(lines[0]) == stable.findall(lines[1])


@OF_RWSGI
@pytest.mark.parametrize(
    "options",
    [
        ["--log-4xx"],
        ["--log-5xx"],
        ["--log-zero"],
        ["--log-big", "1000"],
        ["--log-slow", "5000"],
        ["--log-4xx", "--log-5xx", "--log-zero"],
        ["--log-sendfile", "true"],
        ["--log-sendfile", "false"],
        [],
    ],
)
def test_with_logging_disabled_the_same_requests_have_a_line_as_in_uwsgi(both, options):
    # The last one has no line by any of the options. Its answer shows that uWSGI has logged the one before it, which it would
    # not do any more when it is told to stop.
    paths = ["/plain", "/missing", "/broken", "/empty", "/big", "/file", "/last"]
    if "--log-slow" in options:
        paths.insert(0, "/slow")
    logged = []
    for asked in both("--disable-logging", "--log-format", "line of %(uri)", *options):
        for path in paths:
            asked.request("http-socket", "GET", path)
        # Whatever was to be logged is there after the end.
        asked.server.stop()
        logged.append(re.findall(r"line of (\S+)", asked.server.log()))
    assert logged[0] == logged[1]


@OF_RWSGI
def test_x_forwarded_for_is_the_client(both):
    lines = [asked.line("http-socket", "GET", "/x", HEADERS) for asked in both("--log-x-forwarded-for", "--log-format", "%(addr)|%(uri)")]
    assert lines == ["203.0.113.5, 10.1.1.1|/x"] * 2
    lines = [asked.line("http-socket", "GET", "/x") for asked in both("--log-x-forwarded-for", "--log-format", "%(addr)|%(uri)")]
    assert lines == ["127.0.0.1|/x"] * 2


@OF_RWSGI
def test_the_json_format_has_fixed_keys_and_types(serve, tmp_path, address):
    (tmp_path / "app.py").write_text(APP)
    server = serve("--http-socket", address, "--wsgi-file", "app.py", "--access-log-format", "json", cwd=tmp_path)
    http.request(address, "POST", "/a?b=c", {"User-Agent": 'x"\\é'.encode().decode("latin-1")}, b"sent")
    until(lambda: server.lines("/a?b=c"), "a line", context=server.log)
    [line] = server.lines("/a?b=c")
    entry = json.loads(line)
    assert list(entry) == (
        "time worker thread pid client user method uri protocol host referer user_agent status request_bytes response_bytes "
        "head_bytes duration_us vars"
    ).split()
    expected = {"client": "127.0.0.1", "user": None, "method": "POST", "uri": "/a?b=c", "protocol": "HTTP/1.1", "status": 200}
    assert {key: entry[key] for key in expected} == expected
    assert (entry["worker"], entry["request_bytes"], entry["response_bytes"]) == (1, 4, 100)
    assert entry["user_agent"] == 'x"\\é'
    assert entry["vars"] == {"mine": "of /a"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry["time"])


@OF_RWSGI
def test_a_reload_brings_another_format(serve, tmp_path, address):
    import signal

    (tmp_path / "app.py").write_text(APP)
    ini = tmp_path / "x.ini"
    text = f"[rwsgi]\nhttp-socket = {address}\nwsgi-file = app.py\nlog-format = %s: %%(uri)\n"
    ini.write_text(text % "first")
    server = serve(ini, cwd=tmp_path, listens=[address])
    http.get(address, "/one")
    server.logged("^first: /one$")
    ini.write_text(text % "second")
    server.send(signal.SIGHUP)

    def is_new() -> bool:
        http.get(address, "/two")
        return bool(server.lines("second: /two"))

    until(is_new, "a line in the new format", context=server.log)
