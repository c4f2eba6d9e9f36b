"""The processes that the master starts: forked once, found again whatever dies when, and none of them forgotten."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from rig import http, processes
from rig.server import Server
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI has no fork server")

APP = """
def application(environ, start_response):
    start_response('200 OK', [])
    return [b'ok']
"""


def only(server: Server, name: str) -> processes.Process:
    """The one process of this name. One that was just forked is called as its parent is, and one that leaves is there."""

    def one() -> list[processes.Process]:
        found = [process for process in server.processes() if process.name == name]
        return found if len(found) == 1 else []

    return until(one, f"one process {name}", context=lambda: f"{server.processes()}\n{server.log()}")[0]


def age(pid: int) -> float:
    """How long a process has run, s."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def processor_time(pid: int) -> float:
    """Processor time that a process has used, s."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def assert_sleeps(server: Server) -> None:
    """The master has nothing to do, and does nothing: one that spins uses all the time that it gets."""
    before, start = processor_time(server.pid), time.monotonic()
    until(lambda: time.monotonic() > start + 2, "two seconds have passed")
    used = processor_time(server.pid) - before
    assert used < 0.2, f"the master used {used} s of 2 s:\n{server.log()}"


def test_an_application_that_ignores_sigchld_gets_its_workers_once(serve, address, stats_at, tmp_path):
    """The system then reaps the fork server's children by itself: that is no failure to fork."""
    (tmp_path / "app.py").write_text("import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n" + APP)
    server = serve(
        *("--http-socket", address, "--wsgi-file", "app.py", "--processes", 2, "--stats", stats_at), cwd=tmp_path
    )
    up = {worker["pid"] for worker in server.wait_workers(2)["workers"]}
    assert "cannot be forked" not in server.log()
    assert {process.pid for process in server.processes() if process.name.startswith("rwsgi w")} == up


def test_what_a_fork_server_was_to_fork_when_it_died_is_forked_by_the_next(serve, address, stats_at):
    """Once more than a worker has slots for instances beside itself: none of them keeps its slot."""
    server = serve("--http-socket", address, "--wsgi-file", "probe.py", "--stats", stats_at)
    for round_ in range(7):
        worker = server.wait_workers(1)["workers"][0]
        fork_server = only(server, "rwsgi forksrv").pid
        until(lambda: min(age(fork_server), age(worker["pid"])) > 1.1, "their deaths are not early ones")
        os.kill(fork_server, signal.SIGSTOP)
        processes.kill(worker["pid"])
        server.wait_stats(
            lambda document: document["workers"][0]["respawn_count"] > worker["respawn_count"], "another is ordered"
        )
        processes.kill(fork_server)
        until(lambda: not processes.alive(fork_server), "the fork server is gone")
        server.logged("loading the application again", round_ + 1)
    server.wait_workers(1)
    assert http.get(address, "/pid").status == 200


def test_the_master_sleeps_when_a_reload_takes_spooler_harakiri_away(serve, address, stats_at, tmp_path):
    (tmp_path / "app.py").write_text(APP)
    file = tmp_path / "site.ini"
    text = f"[uwsgi]\nhttp-socket = {address}\nwsgi-file = app.py\nspooler = {tmp_path / 'jobs'}\n"
    (tmp_path / "jobs").mkdir()
    file.write_text(text + "spooler-harakiri = 1\n")
    server = serve(file, "--stats", stats_at, cwd=tmp_path, listens=[address])
    server.wait_workers(1)
    file.write_text(text)
    server.send(signal.SIGHUP)
    server.logged("generation 1 has left")
    assert_sleeps(server)


def test_the_master_sleeps_when_one_is_late_to_leave_whose_process_it_does_not_know(serve, address, stats_at, tmp_path):
    (tmp_path / "app.py").write_text(APP)
    server = serve(
        *("--http-socket", address, "--wsgi-file", "app.py", "--stats", stats_at, "--mules", 1, "--reload-mercy", 1),
        cwd=tmp_path,
    )
    server.wait_workers(1)
    mule = only(server, "rwsgi mule1").pid
    until(lambda: age(mule) > 1.1, "its death is not an early one")
    fork_server = only(server, "rwsgi forksrv").pid
    os.kill(fork_server, signal.SIGSTOP)
    processes.kill(mule)
    server.logged(r"mule 1 \(pid \d+\) died.*starting another")
    server.send(signal.SIGHUP)
    server.logged("generation 1 has left")
    start = time.monotonic()
    until(lambda: time.monotonic() > start + 1.5, "its time to leave is over")
    try:
        assert_sleeps(server)
    finally:
        processes.kill(fork_server, signal.SIGCONT)
    until(lambda: not processes.alive(fork_server), "the old fork server leaves", context=server.log)
    only(server, "rwsgi mule1")


def test_a_worker_that_exits_before_it_serves_is_started_again_with_a_delay(serve, address, tmp_path):
    """However cleanly it exits: a storm of processes helps nobody."""
    (tmp_path / "app.py").write_text(
        "import sys\nfrom uwsgidecorators import postfork\n@postfork\ndef leave():\n    sys.exit()\n" + APP
    )
    server = serve.start("--http-socket", address, "--wsgi-file", "app.py", cwd=tmp_path)
    for delay in (1, 2):
        server.logged(rf"worker 1 \(pid \d+\) died: exit status 0.*in {delay} s")


@pytest.mark.parametrize("broken", ["no-such-option = 1\n", "chdir = nowhere\n"], ids=["option", "directory"])
def test_a_reload_that_fails_leaves_the_server_in_its_directory(serve, address, stats_at, tmp_path, broken):
    """The next fork server, after the death of this one, imports the application from there."""
    start, home = tmp_path / "start", tmp_path / "home"
    for directory in (start, home):
        directory.mkdir()
    (home / "app.py").write_text(APP)
    file = start / "site.ini"
    text = f"[uwsgi]\nstrict = true\nhttp-socket = {address}\nmodule = app\n"
    file.write_text(text + "chdir = ../home\n")
    server = serve("site.ini", "--stats", stats_at, cwd=start, listens=[address])
    old = server.wait_workers(1)["workers"][0]["pid"]
    file.write_text(text + broken)
    server.send(signal.SIGHUP)
    server.logged("reload: generation 1 goes on")
    assert Path(os.readlink(f"/proc/{server.pid}/cwd")) == home
    processes.kill(only(server, "rwsgi forksrv").pid)
    server.wait_stats(
        lambda document: document["generation"] == 2 and document["workers"][0]["pid"] not in (0, old),
        "the next fork server has loaded the application",
    )
    assert http.get(address, "/").body == b"ok"
