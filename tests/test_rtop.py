"""rtop in a real terminal: against this server, against a real uWSGI, and when a server goes away."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from rig import http, processes, stats
from rig.addresses import abstract, tcp
from rig.http import Connection, head
from rig.server import Program, Servers
from rig.terminal import table
from rig.waiting import until

COLUMNS = "WID % PID REQ RPS EXC SIG STATUS AVG RSS VSZ TX ReSpwn HC RunT LastSpwn".split()


@pytest.fixture
def uwsgi(venv_bin, tmp_path):
    """Starts real uWSGI servers."""
    directory = tmp_path / "uwsgi"
    directory.mkdir()
    servers = Servers(Program(str(venv_bin / "uwsgi")), directory)
    yield servers
    servers.stop_all()


def in_milliseconds(text: str) -> float:
    """A time as either program writes it; uwsgitop's RunT has no unit and is in ms."""
    number, unit = re.fullmatch(r"([\d.]+)(\D*)", text).groups()
    return float(number) * {"µs": 0.001, "us": 0.001, "ms": 1, "": 1, "s": 1000, "m": 60_000}[unit]


def test_against_a_real_uwsgi_it_shows_what_uwsgitop_shows(uwsgi, terminal, rtop, venv_bin, address, stats_at):
    server = uwsgi(
        *("--http-socket", address, "--wsgi-file", "probe.py", "--master", "--processes", 4, "--threads", 2),
        *("--memory-report", "--stats", stats_at),
    )
    for number in range(200):
        try:
            http.get(address, "/pid" if number % 10 else "/fail?token=t")
        except ConnectionError:
            pass  # uWSGI says nothing when the application fails
    ours = terminal([rtop, stats_at])
    theirs = terminal([venv_bin / "uwsgitop", stats_at])
    columns = ("%", "PID", "REQ", "EXC", "SIG", "STATUS", "RSS", "VSZ", "TX", "ReSpwn", "HC", "LastSpwn")

    def workers(monitor) -> dict[str, dict[str, str]]:
        return {row["WID"]: row for row in table(monitor.screen())}

    def figures(rows) -> list[list[str]]:
        return [[rows[wid].get(column) for column in columns] for wid in sorted(rows)]

    def same() -> tuple[dict, dict] | None:
        got, expected = workers(ours), workers(theirs)
        is_whole = set(got) == set(expected) == {"1", "2", "3", "4"}
        return (got, expected) if is_whole and figures(got) == figures(expected) else None

    # uWSGI measures memory after it has answered: one monitor may ask before that, the other after it.
    got, expected = until(same, "both show the same", context=lambda: f"{workers(ours)}\n{workers(theirs)}")
    for wid, row in got.items():
        wanted = expected[wid]
        # uwsgitop cuts the average to whole milliseconds.
        assert int(in_milliseconds(row["AVG"])) == in_milliseconds(wanted["AVG"])
        assert in_milliseconds(row["RunT"]) == pytest.approx(in_milliseconds(wanted["RunT"]), rel=0.02)
    requests = sum(int(row["REQ"]) for row in expected.values())
    ours.wait(f"req {requests}", "uwsgi-2.0", f"masterpid {server.pid}", "uid ", "gid ", "cwd ", "node ")
    ours.press("q")
    ours.wait_left()


def test_it_reads_a_real_uwsgi_s_abstract_socket(uwsgi, rtop, address):
    at = abstract()
    server = uwsgi.start("--http-socket", address, "--wsgi-file", "probe.py", "--master", "--stats", at)

    def read() -> str | None:
        done = subprocess.run([rtop, at, "-n", "1"], capture_output=True, text=True, timeout=30)
        return done.stdout if done.returncode == 0 else None

    shown = until(read, "rtop reads it", context=server.log)
    assert f"masterpid {server.pid}" in shown


@pytest.mark.parametrize("form", ["tcp", "unix", "abstract", "http"])
def test_it_shows_the_workers(serve, terminal, rtop, address, stats_at, tmp_path, form):
    at = {"tcp": stats_at, "http": stats_at, "unix": str(tmp_path / "stats"), "abstract": abstract()}[form]
    http_option = ["--stats-http"] if form == "http" else []
    server = serve(
        *("--http-socket", address, "--wsgi-file", "probe.py", "--master", "--processes", 3, "--threads", 2),
        *("--stats", at, *http_option),
    )
    for _ in range(60):
        http.get(address, "/pid")
    screen = terminal([rtop, f"http://{at}/" if form == "http" else at, "--frequency", "0.2"])

    def whole(text):
        # The last request is counted after its response.
        requests = [row.get("REQ", "") for row in table(text)]
        # A worker that has no process yet is shown with process 0.
        begun = {row.get("PID") for row in table(text)} <= {str(process.pid) for process in server.processes()}
        return len(requests) == 3 and all(map(str.isdigit, requests)) and sum(map(int, requests)) == 60 and begun

    rows = table(screen.wait_for(whole, "three workers, and all requests"))
    # All of uwsgitop's, in its order; what is ours stands between them.
    assert [title for title in rows[0] if title in COLUMNS] == COLUMNS
    if not serve.program.is_uwsgi:
        # What only this server tells; it is of the time between two readings, so that the first does not have it.
        screen.wait("p50", "p95", "p99", "util")
    screen.press("q")
    screen.wait_left()


def test_it_follows_requests_and_shows_cores(serve, terminal, rtop, address, stats_at, tmp_path, record):
    serve("--http-socket", address, "--wsgi-file", "probe.py", "--master", "--threads", 2, "--stats", stats_at)
    screen = terminal([rtop, stats_at, "--frequency", "0.2"])
    screen.wait("req 0")
    for _ in range(25):
        http.get(address, "/pid")
    screen.wait("req 25")
    go = tmp_path / "go"
    with Connection(address) as connection:
        connection.send(head("GET", f"/slow?go={go}&record={record.path}"))
        screen.wait_for(lambda text: any(row["STATUS"] == "busy" for row in table(text)), "a busy worker")
        # uwsgitop's green.
        assert re.search("\x1b\\[([0-9;]*;)?(32|38;5;2)m", screen.colours())
        screen.press("a")
        screen.wait_for(lambda text: re.search(r"^ *1:[01] ", text, re.MULTILINE), "cores in the place of workers")
        screen.press("a")
        screen.wait_for(lambda text: re.search(r"^ *:[01] ", text, re.MULTILINE), "cores under their worker")
        screen.press("a")
        screen.wait_for(lambda text: not re.search(r"^ *(1:|:)[01] ", text, re.MULTILINE), "no cores")
        go.touch()
        assert connection.response().status == 200
    screen.wait("req 26")
    screen.press("f")
    screen.press("q")
    screen.wait_left()


@pytest.mark.only_rwsgi(why="uWSGI does not tell what was raised")
def test_a_worker_looked_at_closely_tells_who_called_what_raised(serve, terminal, rtop, address, stats_at):
    serve("--http-socket", address, "--wsgi-file", "probe.py", "--master", "--stats", stats_at)
    http.get(address, "/fail?token=seen")
    screen = terminal([rtop, stats_at, "--frequency", "0.2"], columns=80, rows=18)
    screen.wait("WID")
    screen.press("Enter")
    told = r"ValueError: failed seen.*\nin .*probe\.py:\d+ in fail *\nby .*probe\.py:\d+ in application *\n"
    shown = screen.wait_for(
        lambda text: re.search(told, text) and "on GET /fail?token=…" in text, "what was raised, and by whom"
    )
    # What does not fit is a page further down.
    assert "recycled by reason" not in shown
    screen.press("PageDown")
    screen.wait("recycled by reason")
    screen.press("Escape")
    screen.wait("WID")
    screen.press("q")
    screen.wait_left()


def test_it_says_so_when_the_server_goes_away_and_comes_back_with_it(serve, terminal, rtop, address, stats_at):
    arguments = ("--http-socket", address, "--wsgi-file", "probe.py", "--master", "--stats", stats_at)
    first = serve(*arguments)
    screen = terminal([rtop, stats_at, "--frequency", "0.2"])
    screen.wait(f"masterpid {first.pid}")
    first.stop()
    screen.wait_for(lambda text: re.search(r"(?i)refused|no answer|gone|lost|reconnect|cannot|unreach", text), "it says so")
    second = serve(*arguments)
    screen.wait(f"masterpid {second.pid}")
    screen.wait_for(lambda text: len(table(text)) == 1, "its worker")
    screen.press("q")
    screen.wait_left()


def test_it_waits_for_a_server_that_is_not_there_yet(serve, terminal, rtop, address, stats_at):
    screen = terminal([rtop, stats_at, "--frequency", "0.2"])
    screen.wait_for(lambda text: re.search(r"(?i)refused|no answer|waiting|reconnect|cannot", text), "it says so")
    serve("--http-socket", address, "--wsgi-file", "probe.py", "--master", "--stats", stats_at)
    screen.wait_for(lambda text: len(table(text)) == 1, "its worker")
    screen.press("q")
    screen.wait_left()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "q", "C-c"])
def test_it_leaves_the_terminal_as_it_was(serve, terminal, rtop, address, stats_at, name):
    serve("--http-socket", address, "--wsgi-file", "probe.py", "--master", "--stats", stats_at)
    screen = terminal([rtop, stats_at, "--frequency", "0.2"])
    screen.wait("WID")
    if name.startswith("SIG"):
        number = getattr(signal, name)
        processes.kill(screen.pid_of("rtop"), number)
        # A shell's word for what a signal ended.
        screen.wait_left(128 + number)
    else:
        screen.press(name)
        screen.wait_left(0)


def test_ctrl_c_leaves_whatever_is_open(serve, terminal, rtop, address, stats_at):
    serve("--http-socket", address, "--wsgi-file", "probe.py", "--master", "--stats", stats_at)
    for key, sign in (("?", "keys and columns"), ("c", "columns: "), ("w", "alerts"), ("/", "filter: ")):
        screen = terminal([rtop, stats_at, "--frequency", "0.2"])
        screen.wait("WID")
        screen.press(key)
        screen.wait(sign)
        screen.press("C-c")
        screen.wait_left(0)


def test_it_takes_any_size_of_terminal(serve, terminal, rtop, address, stats_at):
    serve("--http-socket", address, "--wsgi-file", "probe.py", "--master", "--processes", 8, "--stats", stats_at)
    screen = terminal([rtop, stats_at, "--frequency", "0.2"])
    screen.wait("WID")
    for columns, rows in ((80, 24), (20, 5), (20, 4), (1, 1), (300, 100), (10, 60), (200, 40)):
        screen.resize(columns, rows)
        # A row stays selected, whether there is space for it or not.
        screen.press("End")

        def drawn(text: str, columns: int = columns, rows: int = rows) -> bool:
            if columns == 1:
                return text.strip() == "…"
            # The first line names the server, and the last one the keys.
            lines = text.splitlines()
            return len(lines) == rows and "wsgi-" in lines[0] and lines[-1].startswith("q quit")

        screen.wait_for(drawn, f"a frame of {columns}x{rows}")
    screen.wait_for(lambda text: len(table(text)) == 8, "eight workers")
    screen.press("q")
    screen.wait_left()


def test_without_a_terminal_it_prints_plain_tables(serve, rtop, address, stats_at):
    serve("--http-socket", address, "--wsgi-file", "probe.py", "--master", "--processes", 2, "--stats", stats_at).wait_workers(2)
    done = subprocess.run([rtop, stats_at, "-n", "1"], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert len(table(done.stdout)) == 2


def test_a_server_that_nobody_runs_is_an_error_in_batch(rtop):
    at = tcp()
    done = subprocess.run([rtop, at, "-n", "1"], capture_output=True, text=True, timeout=30)
    assert done.returncode != 0
    assert at in done.stderr and "panicked" not in done.stderr


# ab ends with the last response, and a request is counted after that.
LOAD = """
import subprocess, sys
sys.path.insert(0, sys.argv[1])
from rig import stats
from rig.waiting import until

def counted():
    return stats.total(stats.read(sys.argv[2]), "requests")

before = counted()
subprocess.run(["ab", "-q", "-n", "2000", "-c", "8", sys.argv[3]], check=True)
until(lambda: counted() >= before + 2000, "all are counted")
"""


def judged(rtop, stats_at, address, tmp_path, *assertions):
    """What rtop says of the server while ab loads it, and its JUnit file."""
    junit = tmp_path / "slo.xml"
    command = [rtop, stats_at, "--junit", junit, *(part for text in assertions for part in ("--assert", text))]
    load = [sys.executable, "-c", LOAD, Path(__file__).parent, stats_at, f"http://{address}/pid"]
    done = subprocess.run([*command, "--", *load], capture_output=True, text=True, timeout=120)
    suite = ElementTree.parse(junit).getroot().find("testsuite")
    return done, suite


@pytest.mark.parametrize("kind", ("serve", "uwsgi"))
def test_objectives_are_judged_by_what_ab_s_load_did(kind, request, rtop, address, stats_at, tmp_path):
    server = request.getfixturevalue(kind)(
        *("--http-socket", address, "--wsgi-file", "probe.py", "--master", "--processes", 2),
        *("--memory-report", "--stats", stats_at),
    )
    # What was before the load does not count.
    for _ in range(5):
        http.get(address, "/pid")
    server.wait_stats(lambda document: stats.total(document, "requests") == 5, "all are counted")
    holds = ["requests == 2000", "error_rate < 0.1%", "rps > 1", "harakiri == 0", "rss.max < 1GiB", "respawns == 0"]
    if kind == "serve":
        holds.append("p99 < 1m")
    done, suite = judged(rtop, stats_at, address, tmp_path, *holds)
    assert (done.returncode, done.stderr.count("panicked")) == (0, 0), done.stdout + done.stderr
    assert [suite.get(name) for name in ("tests", "failures", "errors")] == [str(len(holds)), "0", "0"]
    done, suite = judged(rtop, stats_at, address, tmp_path, "requests == 2000", "rps > 9000k")
    assert done.returncode == 1, done.stdout + done.stderr
    assert [suite.get(name) for name in ("tests", "failures", "errors")] == ["2", "1", "0"]
    failed = [case.get("name") for case in suite.findall("testcase") if case.find("failure") is not None]
    assert failed == ["rps > 9000k"]
