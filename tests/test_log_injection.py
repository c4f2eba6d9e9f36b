"""Nobody who sends something writes a line of the log, or reaches the terminal of who reads it or of who runs rtop."""

from __future__ import annotations

import gzip
import json
import re
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from rig import http, uwsgi
from rig.http import Connection
from rig.site import every_kind
from rig.waiting import until

OF_RWSGI = pytest.mark.only_rwsgi(why="uWSGI's log is another")

FORGED = "2026-01-01T00:00:00.000000Z ERROR forged"
# A line of ours, an escape sequence, one of C1 as UTF-8 and as a lone byte (latin-1), ends of lines that Python knows.
HOSTILE = f"\n{FORGED}\x1b[2J\x9b31m\x7f\r\u0085"
# What may stand in a log: its own ends of lines, and no other control character, in any encoding.
RAW = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def assert_clean(server) -> None:
    """No control character, no forged line."""
    log = server.log_path.read_bytes()
    text = log.decode(errors="surrogateescape")
    assert RAW.search(text) is None, ascii(RAW.search(text))
    assert not re.search("[\udc80-\udcff]", text), "bytes that are no UTF-8"
    assert not [line for line in text.splitlines() if line.startswith("2026-01-01")], text


@OF_RWSGI
def test_no_variable_of_a_packet_forges_a_line(serve):
    site = every_kind(serve, "--wsgi-file", "probe.py")["socket"]
    for name in ("REMOTE_ADDR", "REQUEST_METHOD", "REQUEST_URI", "SERVER_PROTOCOL", "HTTP_USER_AGENT"):
        variables = [(n, v) for n, v in uwsgi.variables("GET", "/pid") if n != name] + [(name, f"sent{HOSTILE}")]
        with Connection(site.address) as connection:
            connection.send(uwsgi.packet(variables))
            connection.response()
    until(lambda: len(site.server.lines("/pid")) >= 4, "four lines", context=site.server.log)
    site.server.logged(r"sent\\n2026-01-01")
    assert_clean(site.server)


FORMATS = {
    **{name: ["--access-log-format", name] for name in ("rwsgi", "uwsgi", "combined", "json", "logfmt")},
    "plain": ["--log-format", "%(addr) %(user) %(method) %(uri) %(proto) %(host) %(uagent) %(var.HTTP_X_A) %(mine)"],
    "quoted": ["--log-format", '"%(addr)" "%(user)" "%(method)" "%(uri)" "%(uagent)" "%(var.HTTP_X_A)" "%(mine)" end'],
    "like json": ["--log-format", '{"a":"%(addr)","m":"%(method)","u":"%(uri)","g":"%(uagent)","x":"%(var.HTTP_X_A)","v":"%(mine)"}'],
}
LOGGERS = {"standard error": [], "a logger": ["--req-logger", "stdio"], "an encoder": ["--log-encoder", "prefix > "]}


@OF_RWSGI
@pytest.mark.parametrize("logger", LOGGERS)
@pytest.mark.parametrize("form", FORMATS)
def test_no_request_forges_a_line_in_any_format(serve, tmp_path, address, form, logger):
    (tmp_path / "app.py").write_text(
        "import uwsgi\n"
        "def application(environ, start_response):\n"
        f"    uwsgi.set_logvar('mine', {HOSTILE!r} + '\"end')\n"
        "    start_response('204 No Content', [])\n"
        "    return []\n"
    )
    server = serve("--socket", address, "--wsgi-file", "app.py", *FORMATS[form], *LOGGERS[logger], cwd=tmp_path)
    names = ("REMOTE_ADDR", "REMOTE_USER", "REQUEST_METHOD", "REQUEST_URI", "SERVER_PROTOCOL", "HTTP_USER_AGENT", "HTTP_REFERER", "HTTP_HOST", "HTTP_X_A")
    for name in names:
        variables = [(n, v) for n, v in uwsgi.variables("GET", "/pid") if n != name] + [(name, f'"sent\\"{HOSTILE}')]
        with Connection(address) as connection:
            connection.send(uwsgi.packet(variables))
            connection.response()
    # Only those about requests: each names the socket's client, or the hostile text in its place.
    lines = until(
        lambda: len(found := [line for line in server.log().splitlines() if "192.0.2.7" in line or "sent" in line]) >= len(names) and found,
        "a line for each",
        context=server.log,
    )
    assert len(lines) == len(names), lines
    assert_clean(server)
    if "json" in form:
        assert [json.loads(line.removeprefix("> ")) for line in lines]
    if form == "quoted":
        assert {line.count('"') for line in lines} == {14}, lines


@OF_RWSGI
@pytest.mark.parametrize("kind", ["http", "http-socket", "socket"])
def test_the_text_of_an_exception_forges_no_line(serve, tmp_path, kind):
    (tmp_path / "app.py").write_text(
        f"HOSTILE = {HOSTILE!r} + '\\u2028\\u202e'\n"
        "class Odd(Exception):\n"
        "    pass\n"
        "def application(environ, start_response):\n"
        "    path = environ['PATH_INFO']\n"
        "    if path == '/raise':\n"
        "        raise Odd('raised' + HOSTILE)\n"
        "    if path == '/chain':\n"
        "        try:\n"
        "            raise Odd('first' + HOSTILE)\n"
        "        except Odd as first:\n"
        "            second = Odd('chained' + HOSTILE)\n"
        "            if hasattr(second, 'add_note'):\n"
        "                second.add_note('note' + HOSTILE)\n"
        "            raise second from first\n"
        "    if path == '/status':\n"
        "        start_response('200 OK' + HOSTILE, [])\n"
        "    if path == '/header':\n"
        "        start_response('200 OK', [('X-A', 'header' + HOSTILE, 1)])\n"
        "    if path == '/close':\n"
        "        class Body(list):\n"
        "            def close(self):\n"
        "                raise Odd('closed' + HOSTILE)\n"
        "        start_response('200 OK', [])\n"
        "        return Body([b'x'])\n"
    )
    site = every_kind(serve, "--wsgi-file", "app.py", "--chdir", tmp_path)[kind]
    for path in ("/raise", "/chain", "/status", "/header", "/close"):
        site.get(path)
    # Its lines are there, and stand in from those of the server.
    site.server.logged(r"(?s)ERROR GET /raise: Odd: raised\\n2026-01-01.*^  Traceback \(most recent call last\):\n.*^    File .*app\.py")
    site.server.logged(r"^  app\.Odd: raised$|^  .*Odd: raised$")
    site.server.logged(r"^  The above exception was the direct cause of the following exception:$")
    site.server.logged(r"Odd: closed")
    assert_clean(site.server)


@OF_RWSGI
def test_an_application_s_own_lines_stay_as_they_are(serve, tmp_path, address):
    (tmp_path / "app.py").write_text(
        "import sys\n"
        "def application(environ, start_response):\n"
        "    print('\\x1b[31mred\\x1b[0m')\n"
        "    print('\\tindented', file=environ['wsgi.errors'])\n"
        "    sys.stdout.flush()\n"
        "    start_response('204 No Content', [])\n"
        "    return []\n"
    )
    server = serve("--http-socket", address, "--wsgi-file", "app.py", cwd=tmp_path)
    assert http.get(address, "/").status == 204
    server.logged("^\x1b\\[31mred\x1b\\[0m$")
    server.logged("^\tindented$")


@OF_RWSGI
@pytest.mark.parametrize("kind", ["http", "http-socket", "socket"])
def test_a_flood_of_refused_requests_writes_few_lines_and_their_count(serve, kind):
    site = every_kind(serve, "--wsgi-file", "probe.py")[kind]
    # A TLS client's hello, and a packet that is none.
    junk = b"\0\xff\xff\0" + b"x" * 70_000 if kind == "socket" else b"\x16\x03\x01\x02\0\x01\0\r\n\r\n"
    flood, began = 500, time.monotonic()
    for _ in range(flood):
        try:
            with Connection(site.address) as connection:
                connection.send(junk)
                connection.rest()
        except OSError:
            pass
    # A few at once; the rest as a number, which may come in parts.
    until(lambda: counted(site.server) == flood, f"{flood} counted", context=site.server.log)
    # In each ten seconds, which a busy machine has more of.
    assert 1 <= len(refused(site.server)) <= 20 * (1 + (time.monotonic() - began) // 10), len(refused(site.server))


@OF_RWSGI
@pytest.mark.parametrize("kind", ["http", "http-socket"])
def test_what_a_process_did_not_write_it_counts_before_it_leaves(serve, kind):
    site = every_kind(serve, "--wsgi-file", "probe.py")[kind]
    # A server that is stopped before the application is loaded has nothing to finish.
    assert http.get(site.address, "/pid").status == 200
    for _ in range(100):
        with Connection(site.address) as connection:
            connection.send(b"what?\r\n\r\n")
            connection.rest()
    until(lambda: len(refused(site.server)) > 5, "lines", context=site.server.log)
    site.server.stop()
    assert counted(site.server) == 100, site.server.log()


@OF_RWSGI
def test_a_neighbour_that_pretends_to_be_a_worker_over_and_over_writes_few_lines(serve, address):
    server = serve("--http", address, "--wsgi-file", "probe.py")
    # The master listens before the router has begun.
    assert http.get(address, "/pid").status == 200
    [router] = [process for process in server.processes() if process.name == "rwsgi http"]
    held = router.open_files()
    rows = [row.split() for row in Path("/proc/net/unix").read_text().splitlines()[1:]]
    # The listening one with an abstract name.
    [name] = [row[7] for row in rows if f"socket:[{row[6]}]" in held and row[3] == "00010000" and len(row) > 7]
    for _ in range(100):
        with socket.socket(socket.AF_UNIX) as link:
            link.connect("\0" + name.removeprefix("@"))
            try:
                link.sendall(b"x" * 64)
                while link.recv(64):
                    pass
            except ConnectionError:
                pass
    server.stop()

    def told() -> int:
        more = re.findall(r"processes refused as workers: … and ([\d,]+) more", server.log())
        return len(server.lines("tried to be a worker")) + sum(map(int, more))

    until(lambda: told() == 100, "all are counted", context=server.log)
    assert 5 <= len(server.lines("tried to be a worker")) <= 60, server.log()


def refused(server) -> list[str]:
    """The lines of requests that were refused."""
    return [line for line in server.lines(" refused: ") if "… and" not in line]


def counted(server) -> int:
    """How many refusals the log tells of."""
    more = re.findall(r"… and ([\d,]+) more", server.log())
    return len(refused(server)) + sum(int(number.replace(",", "")) for number in more)


def document(text: str) -> bytes:
    """A stats document in which everything that is a text is this one."""
    core = {"id": 0, "in_request": 1, "requests": 1, "vars": [f"REQUEST_METHOD={text}", f"REQUEST_URI=/{text}"]}
    raised = {"type": text, "message": text, "where": text, "traceback": [text], "when": 1, "request": text}
    worker = {"id": 1, "pid": 8, "status": text, "requests": 5, "last_exception": raised, "cores": [core]}
    whole = {
        **{"version": text, "pid": 7, "server": text, "hostname": text, "python": text, "cwd": text},
        **{"workers": [worker], "sockets": [{"name": text, "proto": text}]},
        **{"spoolers": [{"dir": text, "pid": 9}], "vassals": [{"id": text, "pid": 10}]},
    }
    return json.dumps(whole, ensure_ascii=False).encode()


@pytest.fixture
def hostile_server():
    """A stats server that sends escape sequences wherever there is a text: its address."""
    bytes_ = document(f"=cmd|' /C calc'!A0{HOSTILE}\u2028\u202etxt\u2066")
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.sendall(bytes_)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


@pytest.mark.parametrize("form", ["--batch", "--json", "--csv", "verdicts"])
def test_rtop_passes_no_escape_sequence_of_a_server(hostile_server, rtop, tmp_path, form):
    files = [tmp_path / name for name in ("junit.xml", "summary.md", "page.html")]
    recording = tmp_path / "run.rtop"
    judged = ["--assert", "requests >= 0", "--junit", files[0], "--markdown", files[1], "--html", files[2]]
    forms = judged if form == "verdicts" else [form]
    command = [rtop, hostile_server, *forms, "-n", "3", "--frequency", "0.1", "--record", recording]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60)
    recorded = gzip.decompress(recording.read_bytes()).decode()
    texts = [done.stdout, done.stderr, recorded] + [file.read_text() for file in files if file.exists()]
    for text in texts:
        assert RAW.search(text) is None, ascii(text)
        assert FORGED not in text.splitlines()
    if form == "--csv":
        # No cell is a formula for a spreadsheet.
        assert "'=cmd|" in done.stdout
        assert not re.search(r"(^|,)\"?[=+@]", done.stdout, re.MULTILINE), done.stdout


def test_rtop_passes_no_escape_sequence_of_a_recording(rtop, tmp_path):
    text = f"=x{HOSTILE}\u202e"
    lines = [
        {"rtop": text, "format": 2, "started": 1, "interval": 100_000, "targets": [text]},
        {"target": text, "at": 1, "taken": 1, "document": json.loads(document(text))},
        {"target": text, "at": 100_001, "taken": 100_001, "error": text},
        {"target": text, "at": 200_001, "taken": 200_001, "document": json.loads(document(text))},
        {"end": 200_002, "by": "count", "why": text},
    ]
    recording = tmp_path / "run.rtop"
    recording.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))
    files = [tmp_path / name for name in ("junit.xml", "summary.md", "page.html")]
    judged = ["--assert", "requests >= 0", "--junit", files[0], "--markdown", files[1], "--html", files[2]]
    for forms in (["--batch"], ["--json"], ["--csv"], judged, [*judged, "--json"]):
        command = [str(part) for part in (rtop, "--replay", recording, *forms)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        for shown in [done.stdout, done.stderr] + [file.read_text() for file in files if file.exists()]:
            assert RAW.search(shown) is None, (forms, ascii(shown))
