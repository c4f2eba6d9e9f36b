"""Commands at times of the calendar, and signals by timers and files. What uWSGI does too is tried with a real one."""

from __future__ import annotations

import os
import re
import signal
import time

import pytest

from rig import each, http, processes
from rig.addresses import tcp
from rig.server import Server, Servers
from rig.waiting import until

BOTH = pytest.mark.parametrize("serve", each.BOTH, indirect=True)
EACH = "-1 -1 -1 -1 -1"

APP = """
import os, time, uwsgi

def told(line):
    with open({record!r}, "a") as file:
        file.write(line + "\\n")

def hang(number):
    told("hangs %d" % os.getpid())
    time.sleep(1000)

uwsgi.register_signal(17, "worker", lambda number: told("17"))
uwsgi.register_signal(18, "mule", hang)

def application(environ, start_response):
    start_response("200 OK", [])
    return [b"x"]
"""


@pytest.fixture
def serve(request, program, tmp_path, venv_bin):
    """Servers of the program under test, or of the one that the test is parametrised with."""
    servers = each.servers(getattr(request, "param", "rwsgi"), program, venv_bin, tmp_path)
    yield servers
    servers.stop_all()


def server_of(serve: Servers, *arguments: object, app: object = "foobar.py", **options) -> Server:
    return serve("--http-socket", tcp(), "--wsgi-file", app, "--master", "--stats", tcp(), *arguments, **options)


def end_with_crons(server: Server) -> None:
    """Ends a server, and then its commands: before, each minute may bring another one."""
    server.send(signal.SIGTERM)
    server.wait_exit()
    for process in server.processes():
        if "sleep" in process.command:
            processes.kill(process.pid)


@pytest.fixture
def app(tmp_path):
    """An application that handles signals."""
    path = tmp_path / "app.py"
    path.write_text(APP.format(record=str(tmp_path / "record")))
    return path


@pytest.fixture
def record(tmp_path):
    """What it wrote down."""
    path = tmp_path / "record"
    return lambda: path.read_text().splitlines() if path.exists() else []


@BOTH
def test_crons_and_the_application_have_the_time_zone_of_the_configuration(serve, tmp_path):
    there = [(time.gmtime().tm_hour + 9 + later) % 24 for later in (0, 1)]
    app = tmp_path / "zone.py"
    app.write_text("import time\nprint('zone', time.strftime('%z'), flush=True)\ndef application(e, s): pass\n")
    crons = [word for hour in there for word in ("--cron", f"-1 {hour} -1 -1 -1 touch {tmp_path}/ran")]
    server = server_of(serve, "--env", "TZ=THERE-9", *crons, app=app)
    server.logged(r"^zone \+0900$")
    until((tmp_path / "ran").exists, "the cron of this hour there has run", context=server.log)


@BOTH
def test_the_minute_in_which_the_server_starts_counts_and_the_stats_show_what_runs(serve, record, tmp_path):
    path = tmp_path / "record"
    server = server_of(
        serve, "--cron", f"{EACH} echo  $OF_THE_SERVER $PWD >>{path}; exec sleep 1000", "--cron", "0 0 1 1 6 never",
        "--cron2", "minute=-2,hour=-1,unique=1 true", env={"OF_THE_SERVER": "a"},
    )  # fmt: skip
    until(record, "it has run", context=server.log)
    assert record()[0] == f"a {os.path.dirname(os.path.abspath(__file__))}/apps"
    first, second, third = server.wait_stats(lambda stats: stats["crons"][0]["pid"] > 0, "it runs")["crons"]
    assert first["command"].startswith("echo  $OF") and first["started_at"] > 1_700_000_000
    assert (first["minute"], first["week"], first["unique"]) == (-1, -1, 0)
    assert (second["pid"], second["started_at"], second["command"], second["week"]) == (-1, 0, "never", 6)
    assert (third["minute"], third["unique"], third["command"]) == (-2, 1, "true")
    # At the beginning of a minute it is a new one, which is no leader yet.
    until(lambda: os.getsid(first["pid"]) == first["pid"], "it leads a session")

    def is_ended(stats) -> bool:
        pid = stats["crons"][0]["pid"]
        if pid > 0:
            processes.kill(pid)
        return pid == -1

    server.wait_stats(is_ended, "its end is noticed")
    end_with_crons(server)


@BOTH
def test_one_that_takes_too_long_is_killed_with_its_group(serve):
    server = server_of(
        serve, "--cron-harakiri", 1, "--cron", f"{EACH} sleep 1001 & wait", "--cron2", "harakiri=0 exec sleep 1002",
        "--cron2", "harakiri=2,unique=1 sleep 1003 & wait",
    )  # fmt: skip
    server.logged("(?i)harakiri.*sleep 1003")
    server.logged("(?i)harakiri.*sleep 1001")
    # Two of them when a minute has begun meanwhile.
    until(
        lambda: {p.command for p in server.processes() if p.command.startswith("sleep")} == {"sleep 1002"},
        "only the one without a limit is left",
        context=lambda: f"{server.processes()}",
    )
    end_with_crons(server)


@BOTH
def test_one_goes_on_when_the_server_is_reloaded_or_ends(serve):
    server = server_of(serve, "--unique-cron", f"{EACH} exec sleep 1000")
    pid = server.wait_stats(lambda stats: stats.get("crons") and stats["crons"][0]["pid"] > 0, "it runs")["crons"][0]["pid"]
    try:
        # A worker of uWSGI that is told to leave while it starts does not.
        assert http.get(server.arguments[1], "/").status == 200
        server.send(signal.SIGHUP)
        if serve.program.is_uwsgi:
            server.logged("spawned uWSGI worker 1", count=2)
            assert http.get(server.arguments[1], "/").status == 200
        else:
            server.logged("generation 2 takes over")
            assert server.stats()["crons"][0]["pid"] == pid
        server.send(signal.SIGTERM)
        server.wait_exit()
        assert processes.alive(pid)
    finally:
        # After a reload, uWSGI has forgotten the first.
        for process in server.processes():
            processes.kill(process.pid)


@pytest.mark.only_rwsgi(why="uWSGI's own log line")
def test_what_a_command_says_and_how_it_ends_is_in_the_log(serve):
    server = server_of(serve, "--cron", f"{EACH} echo told; exit 3")
    server.logged("^told$")
    server.logged(r"cron: 'echo told; exit 3' \(pid \d+\) has ended after 0 s: exit status 3")


@BOTH
def test_signals_are_raised_by_timers(serve, app, record):
    server = server_of(serve, "--timer", "17 1", app=app)
    until(lambda: len(record()) >= 2, "it was raised twice", context=server.log)
    rb = server_of(serve, "--signal-rbtimer", "17 1", app=app)
    before = len(record())
    until(lambda: len(record()) >= before + 4, "both raise it", context=rb.log)


@BOTH
@pytest.mark.parametrize("option", ["touch-signal", "fs-signal"])
def test_a_signal_is_raised_when_a_file_changes(serve, app, record, tmp_path, option):
    file = tmp_path / "file"
    file.write_text("")
    server = server_of(serve, f"--{option}", f"{file} 17", app=app)
    until(lambda: file.write_text(file.read_text() + "x") and record(), "it was raised", context=server.log)


@BOTH
def test_a_mule_that_handles_a_signal_for_too_long_is_ended(serve, app, record):
    server = server_of(serve, "--mule", "--mule-harakiri", 1, "--timer", "18 1", app=app)
    until(lambda: len(set(record())) >= 2, "another mule hangs too", context=server.log)


@BOTH
@pytest.mark.parametrize("kind", ["mules", "spoolers"])
def test_mules_and_spoolers_are_started_again_when_a_file_changes(serve, app, tmp_path, kind):
    if serve.program.is_uwsgi and kind == "spoolers":
        pytest.skip("uWSGI 2.0.31 says that it does, and the same process goes on")
    file, jobs = tmp_path / "file", tmp_path / "jobs"
    file.write_text("")
    jobs.mkdir()
    server = server_of(
        serve, f"--touch-{kind}-reload", file, "--mule", "--spooler", jobs, "--spooler-frequency", 1, "--auto-procname",
        app=app,
    )  # fmt: skip
    name = kind[:-1]

    def pids() -> list[int]:
        # Until it has its name it has its parent's, which may be the command line: that has the word too.
        return [process.pid for process in server.processes() if re.match(rf"(rwsgi|uWSGI) {name}\b", process.command)]

    def touch() -> bool:
        file.write_text(file.read_text() + "x")
        return bool(pids()) and pids() != [first]

    (first,) = until(pids, "it runs", context=server.log)
    until(touch, "another one runs", context=server.log)


@pytest.mark.only_rwsgi(why="it knows no legion either, or runs the command")
def test_what_is_for_one_machine_of_a_legion_is_refused_with_the_reason(serve):
    for arguments, said in [
        (["--legion-cron", f"l {EACH} true"], "every machine would do the work"),
        (["--cron2", "legion=l,minute=1 true"], "every node would run the command"),
        (["--worker-exec", "php-fpm"], "attach-daemon"),
    ]:
        server = serve.run("--http-socket", tcp(), "--wsgi-file", "foobar.py", *arguments)
        assert server.process.returncode == 1
        assert re.search(said, server.log()), server.log()
