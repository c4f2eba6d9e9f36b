"""Where lines of the log go: files, sockets, syslog; and what becomes of them on the way."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import stat
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from rig import http, processes
from rig.addresses import tcp
from rig.datagrams import Receiver
from rig.waiting import until

OF_RWSGI = pytest.mark.only_rwsgi(why="the uWSGI of the tests has no regular expressions, or the rule is ours")

# The command of an alarm that writes the text and its line end at once: commands of two alarms run at the same time.
APPENDED = "awk 1 >>"

APP = """
import sys

def application(environ, start_response):
    # In pieces, as Python's print writes them.
    print("printed", "for", environ["PATH_INFO"], file=sys.stderr)
    if environ["PATH_INFO"] == "/raise":
        raise ValueError("on purpose")
    start_response("200 OK", [])
    return [b"x"]
"""


@pytest.fixture
def start(serve, tmp_path, address):
    """Starts a server of the app: `start(*arguments)`."""
    (tmp_path / "app.py").write_text(APP)

    def start(*arguments: object):
        return serve("--master", "--http-socket", address, "--wsgi-file", "app.py", *arguments, cwd=tmp_path)

    return start


@pytest.fixture
def unix_socket(tmp_path):
    """A receiver at `tmp_path/log.sock`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "log.sock"))
        yield Receiver(bound)


@pytest.fixture
def udp_socket():
    """A receiver at a free port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        yield Receiver(bound)


def text(path: Path) -> str:
    # It may be put aside at any moment.
    with suppress(FileNotFoundError):
        return path.read_text()
    return ""


def wait_text(path: Path, pattern: str) -> str:
    until(lambda: re.search(pattern, text(path), re.MULTILINE), f"{pattern!r} in {path}", context=lambda: text(path))
    return text(path)


def test_requests_and_everything_else_go_to_files_of_their_own(start, tmp_path, address):
    errors, requests = tmp_path / "errors", tmp_path / "requests"
    server = start("--logger", f"file:{errors}", "--req-logger", f"file:{requests}", "--log-format", "request %(uri)")
    http.get(address, "/one")
    # uWSGI closes without an answer.
    with suppress(http.Closed):
        http.request(address, "GET", "/raise")
    assert wait_text(requests, "^request /raise$") == "request /one\nrequest /raise\n"
    wait_text(errors, "^printed for /one$")
    # The application's traceback, whoever wrote it.
    logged = wait_text(errors, r"ValueError: on purpose$")
    assert "request /" not in logged
    assert "printed" not in server.log() and "on purpose" not in server.log()


def test_every_logger_without_a_name_gets_every_line(start, tmp_path, address):
    one, two = tmp_path / "one", tmp_path / "two"
    server = start("--logger", f"file:{one}", "--logger", f"file:{two}", "--logger", "stdio", "--log-format", "request %(uri)")
    http.get(address, "/x")
    for path in (one, two):
        wait_text(path, "^request /x$")
    server.logged("^request /x$")


@OF_RWSGI
def test_lines_go_to_the_logger_that_their_route_names(start, tmp_path, address):
    rest, named, drained = tmp_path / "rest", tmp_path / "named", "quiet"
    start(
        *("--logger", f"file:{rest}", "--logger", f"special file:{named}", "--log-format", "%(status) %(uri)"),
        *("--log-route", r"special ^\d+ /special$", "--log-drain", drained),
    )
    for path in ("/special", f"/{drained}", "/other"):
        http.get(address, path)
    wait_text(rest, "^200 /other$")
    assert text(named) == "200 /special\n"
    assert "/special\n" not in text(rest).replace("printed for /special\n", "") and drained not in text(rest)


@OF_RWSGI
def test_requests_can_be_routed_apart_from_all_else(start, tmp_path, address):
    bad, rest = tmp_path / "bad", tmp_path / "rest"
    start(
        *("--req-logger", f"file:{rest}", "--req-logger", f"bad file:{bad}", "--log-format", "%(uri) %(status)"),
        *("--log-req-route", "bad  500$"),
    )
    http.get(address, "/fine")
    http.request(address, "GET", "/raise")
    wait_text(bad, "^/raise 500$")
    assert text(rest) == "/fine 200\n"


@OF_RWSGI
def test_a_filter_lets_only_lines_through_that_match(start, address):
    server = start("--log-filter", "wanted", "--log-format", "%(uri)")
    for path in ("/other", "/wanted"):
        http.get(address, path)
    server.logged("^/wanted$")
    assert not server.lines("/other")


def test_lines_are_datagrams_of_a_unix_socket(start, tmp_path, address, unix_socket):
    start("--logger", f"socket:{tmp_path}/log.sock,app: ", "--log-format", "request %(uri)")
    http.get(address, "/x")
    assert unix_socket.wait("request /x") == "app: request /x\n"


def test_lines_are_datagrams_over_udp(start, address, udp_socket):
    port = udp_socket.socket.getsockname()[1]
    start("--log-socket", f"127.0.0.1:{port}", "--log-format", "request %(uri)")
    http.get(address, "/x")
    assert udp_socket.wait("request /x") == "request /x\n"


@pytest.mark.parametrize(
    "end, begin",
    [("", f"<29>TIME {re.escape(socket.gethostname())} uwsgi: "), (",my app", "<29>TIME my app: "), (",me,31", "<31>TIME me: ")],
)
def test_a_remote_syslog_gets_what_uwsgi_sends_it(start, address, udp_socket, end, begin):
    port = udp_socket.socket.getsockname()[1]
    start("--req-logger", f"rsyslog:127.0.0.1:{port}{end}", "--log-format", "request %(uri)")
    http.get(address, "/x")
    pattern = begin.replace("TIME", r"[A-Z][a-z]{2} [ 0-9]\d \d\d:\d\d:\d\d") + "request /x"
    packet = udp_socket.wait("request /x")
    assert re.fullmatch(pattern, packet), packet


@OF_RWSGI
def test_a_long_line_to_a_remote_syslog_is_cut_or_split(start, tmp_path, address, udp_socket):
    port = udp_socket.socket.getsockname()[1]
    options = ["--req-logger", f"rsyslog:127.0.0.1:{port},x", "--log-format", "%(uri)", "--rsyslog-packet-size", "200"]
    server = start(*options)
    http.get(address, "/" + "a" * 500)
    assert len(udp_socket.wait("aaa")) <= 200
    assert len(udp_socket.read()) == 1
    server.stop()
    udp_socket.packets.clear()
    start(*options, "--rsyslog-split-messages")
    http.get(address, "/" + "b" * 500)
    until(lambda: sum(packet.count("b") for packet in udp_socket.read()) >= 500, "all of it", context=lambda: str(udp_socket.packets))
    assert all(len(packet) <= 200 for packet in udp_socket.packets)


@pytest.mark.skipif(os.path.lexists("/dev/log") or os.geteuid() != 0, reason="needs a /dev/log of its own")
def test_the_system_s_syslog_gets_lines(start, address):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind("/dev/log")
        try:
            receiver = Receiver(bound)
            start("--logger", "syslog:my-app,local6", "--log-format", "request %(uri)")
            http.get(address, "/x")
            packet = receiver.wait("request /x")
        finally:
            os.unlink("/dev/log")
    # local6 and informational.
    assert re.fullmatch(r"<182>[A-Z][a-z]{2} [ 0-9]\d \d\d:\d\d:\d\d my-app: request /x\n?", packet), packet


def test_encoders_change_lines_on_their_way(start, tmp_path, address):
    log = tmp_path / "log"
    start(
        *("--req-logger", f"file:{log}", "--log-format", 'said "%(uri)"'),
        *("--log-req-encoder", 'json {"t":${unix},"day":"${strftime:%Y-%m-%d}","m":"${msg}"}', "--log-req-encoder", "nl"),
        *("--log-req-encoder", "prefix > "),
    )
    http.get(address, "/x\\y")
    line = wait_text(log, "/x").splitlines()[0]
    entry = json.loads(line.removeprefix("> "))
    assert entry["m"] == 'said "/x\\y"' and re.fullmatch(r"\d{4}-\d\d-\d\d", entry["day"]) and entry["t"] > 1_000_000_000


@OF_RWSGI
def test_an_encoder_for_one_logger_leaves_the_others_alone(start, tmp_path, address):
    plain, encoded = tmp_path / "plain", tmp_path / "encoded"
    start(
        *("--logger", f"a file:{plain}", "--logger", f"b file:{encoded}", "--log-format", "request %(uri)"),
        *("--log-route", "a .*", "--log-route", "b .*", "--log-encoder", "format:b [${msg}]", "--log-encoder", "nl:b"),
    )
    http.get(address, "/x")
    wait_text(plain, "^request /x$")
    wait_text(encoded, r"^\[request /x\]$")


@OF_RWSGI
def test_a_json_encoder_makes_json_of_whatever_is_printed(serve, tmp_path, address):
    (tmp_path / "app.py").write_text(
        "import os\n"
        "def application(environ, start_response):\n"
        "    os.write(2, b'odd \"\\\\ \\x1b[2J \\xff \\xe2\\x80\\xa8 end\\n')\n"
        "    start_response('204 No Content', [])\n"
        "    return []\n"
    )
    log = tmp_path / "log"
    serve(
        *("--http-socket", address, "--wsgi-file", "app.py", "--logger", f"file:{log}"),
        *("--log-encoder", 'json {"m":"${msg}"}', "--log-encoder", "nl"),
        cwd=tmp_path,
    )
    http.get(address, "/")
    lines = wait_text(log, "odd").splitlines()
    assert [json.loads(line) for line in lines]
    assert any(entry["m"] == 'odd "\\ \x1b[2J \\xff \u2028 end' for entry in map(json.loads, lines))


def test_the_server_s_lines_begin_with_the_date(start, address):
    server = start("--log-date=%Y-%m-%d at")
    http.get(address, "/x")
    server.logged(r"^\d{4}-\d\d-\d\d at - ")


def test_log_files_have_the_mode_that_is_asked_for(serve, tmp_path, address):
    (tmp_path / "app.py").write_text(APP)
    log = tmp_path / "log"
    serve("--http-socket", address, "--wsgi-file", "app.py", "--logto", log, "--logfile-chmod", "622", cwd=tmp_path)
    assert stat.S_IMODE(log.stat().st_mode) == 0o622


@OF_RWSGI
def test_log_files_are_opened_again_on_demand_and_rotated(start, tmp_path, address):
    log, moved, fifo = tmp_path / "log", tmp_path / "moved", tmp_path / "fifo"
    start("--logger", f"file:logfile={log},maxsize=3000,backupname={tmp_path}/old", "--log-format", "request %(uri)", "--master-fifo", fifo)
    http.get(address, "/before")
    wait_text(log, "^request /before$")
    log.rename(moved)
    fifo.write_text("l")
    until(log.exists, "a new file")
    http.get(address, "/after")
    wait_text(log, "^request /after$")
    for _ in range(100):
        http.get(address, "/" + "a" * 50)
    until((tmp_path / "old").exists, "an old file")

    def is_small() -> bool:
        # It may be put aside again at any moment.
        with suppress(FileNotFoundError):
            return log.stat().st_size < 6000
        return False

    until(is_small, "a small new file")


@OF_RWSGI
def test_a_touched_file_puts_the_files_of_loggers_aside(start, tmp_path, address):
    log, old, touched = tmp_path / "log", tmp_path / "old", tmp_path / "touched"
    touched.touch()
    where = f"file:logfile={log},backupname={old}"
    start("--logger", where, "--log-format", "request %(uri)", "--touch-logrotate", touched)
    http.get(address, "/before")
    wait_text(log, "^request /before$")
    touched.write_text("changed")
    wait_text(old, "^request /before$")
    http.get(address, "/after")
    wait_text(log, "^request /after$")
    assert "/before" not in text(log)


@OF_RWSGI
def test_a_file_of_two_loggers_is_put_aside_once(start, tmp_path, address):
    log, touched = tmp_path / "log", tmp_path / "touched"
    touched.touch()
    start("--logger", f"file:{log}", "--req-logger", f"file:{log}", "--log-format", "request %(uri)", "--touch-logrotate", touched)
    http.get(address, "/before")
    # They come through pipes of their own.
    wait_text(log, "^request /before$")
    wait_text(log, "^printed for /before$")
    touched.write_text("changed")
    until(lambda: list(tmp_path.glob("log.*")) and log.exists(), "an old file")
    http.get(address, "/after")
    wait_text(log, "^request /after$")
    wait_text(log, "^printed for /after$")
    assert "/before" not in text(log)
    assert ["request /before" in text(path) for path in tmp_path.glob("log.*")] == [True]


@OF_RWSGI
def test_no_old_file_is_lost_however_often_a_file_is_put_aside(start, tmp_path, address):
    log = tmp_path / "log"
    server = start("--req-logger", f"file:logfile={log},maxsize=2000", "--log-format", "request %(uri).")
    for number in range(200):
        http.get(address, f"/{'x' * 100}{number}")
    server.stop()
    kept = "".join(text(path) for path in tmp_path.glob("log*"))
    assert {int(number) for number in re.findall(r"^request /x+(\d+)\.$", kept, re.MULTILINE)} == set(range(200))


@OF_RWSGI
@pytest.mark.parametrize("way", ["l", "reload"])
def test_standard_error_as_the_file_of_a_logger_stays_that_when_files_are_opened_again(start, tmp_path, address, way):
    fifo = tmp_path / "fifo"
    # A link, as images have one.
    (tmp_path / "log").symlink_to("/dev/stderr")
    server = start("--logger", f"file:{tmp_path}/log", "--log-format", "request %(uri)", "--master-fifo", fifo, "--log-reopen")
    http.get(address, "/before")
    server.logged("^request /before$")
    if way == "l":
        fifo.write_text("l")
        server.logged("log: .*going on with it")
    else:
        server.send(signal.SIGHUP)
        server.logged("generation 2")
    http.get(address, "/after")
    server.logged("^request /after$")


@OF_RWSGI
def test_a_named_pipe_that_nobody_reads_yet_holds_nothing_up(start, tmp_path, address):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    start("--req-logger", f"file:{pipe}", "--log-format", "request %(uri)")
    http.get(address, "/early")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        received = b""

        def is_there() -> bool:
            nonlocal received
            with suppress(BlockingIOError):
                received += os.read(reader, 65536)
            return b"request /early\n" in received

        until(is_there, "what was logged before", context=lambda: repr(received))
    finally:
        os.close(reader)


@OF_RWSGI
def test_a_pipe_whose_reader_hangs_stops_nobody_and_loses_nothing(start, tmp_path, address):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        server = start("--req-logger", f"file:{pipe}", "--log-format", "request %(uri).")
        # More than two pipes hold.
        count, long = 400, "x" * 1000
        for number in range(count):
            assert http.get(address, f"/{long}{number}").status == 200
        server.stop()
        received = server.log()
        with suppress(BlockingIOError):
            while piece := os.read(reader, 65536):
                received += piece.decode()
    finally:
        os.close(reader)
    assert {int(number) for number in re.findall(r"^request /x+(\d+)\.$", received, re.MULTILINE)} == set(range(count))
    server.logged(f"ERROR logger file:{pipe}: ")


@OF_RWSGI
def test_the_log_on_a_terminal_is_what_it_is_in_a_file(program, tmp_path, address):
    (tmp_path / "app.py").write_text(APP)
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    arguments = ["--http-socket", address, "--wsgi-file", "app.py"]
    server = subprocess.Popen([program.path, *arguments], stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, cwd=tmp_path)
    os.close(theirs)
    shown = b""

    def whole() -> list[str]:
        """The lines so far: a terminal may pass on a part of one."""
        return shown.decode().rpartition("\n")[0].splitlines()

    def is_loaded() -> bool:
        nonlocal shown
        # An error: nobody writes there any more.
        with suppress(OSError):
            shown += os.read(ours, 65536)
        return any("loaded in" in line for line in whole())

    try:
        until(is_loaded, "a server", context=lambda: repr(shown))
    finally:
        server.terminate()
        server.wait()
        os.close(ours)
    for line in whole():
        assert re.match(r"\d{4}-\d\d-\d\dT\S+Z  ?[A-Z]{4,5} \w", line), line


@OF_RWSGI
def test_a_line_raises_one_alarm_whoever_writes_it_and_wherever_it_goes(start, tmp_path, address):
    log, raised = tmp_path / "log", tmp_path / "raised"
    server = start(
        *("--logger", f"file:{log}", "--req-logger", f"file:{tmp_path}/requests", "--disable-logging"),
        *("--alarm", f"file cmd:{APPENDED} {raised}", "--alarm-freq", "0"),
        *("--alarm-log", "file ^printed for /alarm", "--alarm-log", "file generation 2 .*: loaded"),
    )
    http.get(address, "/alarm")
    wait_text(raised, "^printed for /alarm$")
    server.send(signal.SIGHUP)
    # The master's own.
    wait_text(raised, "generation 2 .*: loaded")
    http.get(address, "/alarm2")
    wait_text(raised, "^printed for /alarm2$")

    def is_each_raised_once() -> bool:
        # The last of them may not have run.
        logged = [line for line in text(log).splitlines() if re.search("^printed for /alarm|generation 2 .*: loaded", line)]
        return sorted(text(raised).splitlines()) == sorted(logged)

    until(is_each_raised_once, "one alarm for each line", context=lambda: f"{text(raised)}\n{text(log)}")


@OF_RWSGI
def test_lines_of_the_access_log_do_not_get_into_lines_that_raise_alarms(serve, tmp_path, address):
    (tmp_path / "app.py").write_text(
        "import os\n"
        "from urllib.parse import unquote\n"
        "def application(environ, start_response):\n"
        "    os.write(2, unquote(environ['QUERY_STRING']).encode())\n"
        "    start_response('200 OK', [])\n"
        "    return []\n"
    )
    raised, requests = tmp_path / "raised", tmp_path / "requests"
    serve(
        *("--http-socket", address, "--wsgi-file", "app.py", "--req-logger", f"file:{requests}", "--log-format", "request %(uri)"),
        *("--alarm", f"file cmd:{APPENDED} {raised}", "--alarm-log", "file ^o", "--logger", f"file:{tmp_path}/log"),
        cwd=tmp_path,
    )
    http.get(address, "/?one%0Ao")
    wait_text(requests, "one")
    wait_text(raised, "one\n")
    http.get(address, "/?n%0A")
    until(lambda: text(raised).count("\n") >= 2, "both alarms", context=lambda: text(raised))
    assert text(raised).splitlines() == ["one", "on"]


@OF_RWSGI
def test_what_is_wrong_with_a_logger_raises_an_alarm(start, tmp_path, address):
    raised, path = tmp_path / "raised", tmp_path / "log.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(path))
        start(
            *("--logger", f"socket:{path}", "--alarm", f"file cmd:{APPENDED} {raised}"),
            *("--alarm-log", "file ERROR logger"),
        )
    http.get(address, "/x")
    wait_text(raised, f"ERROR logger socket:{path}: ")


@OF_RWSGI
@pytest.mark.parametrize("where", ["file:/dev/full", "socket:/nonexistent/socket", "fd:77", "file:/nonexistent/log"])
def test_what_a_logger_cannot_take_goes_to_standard_error(start, address, where):
    server = start("--logger", where, "--log-format", "request %(uri)")
    http.get(address, "/x")
    server.logged("^request /x$")
    server.logged(f"ERROR logger {where}: .*: its lines go to the log file or standard error")


@OF_RWSGI
def test_a_logger_that_hangs_stops_nobody_and_loses_nothing(start, tmp_path, address, unix_socket):
    server = start("--logger", f"socket:{tmp_path}/log.sock", "--log-format", "request %(uri).", "--processes", 2)
    count = 1_000
    for number in range(count):
        assert http.get(address, f"/{number}").status == 200
    server.stop()
    received = "".join(unix_socket.read()) + server.log()
    for form in (r"^request /(\d+)\.$", r"^printed for /(\d+)$"):
        assert {int(number) for number in re.findall(form, received, re.MULTILINE)} == set(range(count))


@OF_RWSGI
def test_a_syslog_that_comes_back_is_used_again(start, tmp_path, address):
    path = tmp_path / "log.sock"
    server = start("--logger", f"socket:{path}", "--log-format", "request %(uri)")
    http.get(address, "/early")
    server.logged("^request /early$")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(path))
        receiver = Receiver(bound)

        def is_heard() -> bool:
            http.get(address, "/late")
            return any("request /late" in packet for packet in receiver.read())

        until(is_heard, "it is used again", context=server.log)
    server.logged(f"INFO logger socket:{path}: takes lines again")


@OF_RWSGI
def test_a_start_that_fails_says_so_on_standard_error(serve, tmp_path, address):
    with socket.create_server(("127.0.0.1", int(address.rsplit(":")[-1]))):
        server = serve.run("--http-socket", address, "--wsgi-file", "app.py", "--logger", f"file:{tmp_path}/log")
    assert server.process.returncode == 1
    assert "ERROR" in server.log() and address in server.log()


@OF_RWSGI
def test_loggers_outlive_reloads_and_workers(start, tmp_path, address, stats_at):
    log, requests = tmp_path / "log", tmp_path / "requests"
    server = start("--logger", f"file:{log}", "--req-logger", f"file:{requests}", "--log-format", "request %(uri)", "--stats", stats_at)
    before = server.wait_workers(1)["workers"][0]["pid"]
    processes.kill(before)
    server.wait_stats(lambda document: document["workers"][0]["pid"] not in (0, before) and document["workers"][0]["accepting"], "a new one")
    http.get(address, "/killed")
    wait_text(requests, "^request /killed$")
    server.send(signal.SIGHUP)
    server.wait_stats(lambda document: document["generation"] == 2, "the next generation")
    http.get(address, "/reloaded")
    wait_text(requests, "^request /reloaded$")
    wait_text(log, "generation 2")


@OF_RWSGI
def test_loggers_that_are_not_here_are_a_warning_and_their_lines_are_logged(start, address):
    server = start("--logger", "redislog:127.0.0.1:6379,publish uwsgi", "--log-encoder", "gzip", "--log-format", "request %(uri)")
    server.logged("WARN .*redislog.*its lines go where stdio's go")
    server.logged("WARN .*gzip")
    http.get(address, "/x")
    server.logged("^request /x$")


def test_a_log_file_with_a_port_is_another_machine(start, address, udp_socket):
    port = udp_socket.socket.getsockname()[1]
    start("--logto", f"127.0.0.1:{port}", "--log-format", "request %(uri)")
    http.get(address, "/x")
    assert udp_socket.wait("request /x") == "request /x\n"


@OF_RWSGI
def test_a_server_without_loggers_has_no_thread_for_them(serve, address):
    server = serve("--http-socket", address, "--wsgi-file", "probe.py", "--access-log-format", "json")
    assert "rwsgi log" not in processes.look(server.pid).threads()


@OF_RWSGI
@pytest.mark.parametrize("lazy", [[], ["--lazy-apps"]])
def test_programs_of_the_application_do_not_hold_the_pipe_of_the_access_log(serve, tmp_path, address, lazy):
    (tmp_path / "app.py").write_text(
        "import subprocess\n"
        "def held():\n"
        "    return subprocess.run(['ls', '/proc/self/fd'], capture_output=True, text=True, close_fds=False).stdout.split()\n"
        "AT_LOADING = held()\n"
        "def application(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [repr((AT_LOADING, held())).encode()]\n"
    )
    serve(
        *("--http-socket", address, "--http", tcp(), "--wsgi-file", "app.py", "--req-logger", "stdio", *lazy),
        cwd=tmp_path,
    )
    # The fourth is what `ls` reads.
    assert http.get(address, "/").body == repr((["0", "1", "2", "3"],) * 2).encode()
