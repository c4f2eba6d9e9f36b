"""Going to the background, and the log file: where it is, when a new one begins."""

from __future__ import annotations

import re

import pytest

from rig import http, processes
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI leaves before it is known whether the start succeeds")


@pytest.mark.parametrize("option", ["daemonize", "daemonize2"])
def test_the_starter_leaves_when_the_server_runs_in_the_background(serve, address, tmp_path, option):
    log, pidfile = tmp_path / "site.log", tmp_path / "site.pid"
    server = serve.start(
        "--http-socket", address, "--wsgi-file", "worklife.py", f"--{option}", log, "--pidfile", pidfile, "--vacuum"
    )
    assert server.wait_exit() == 0
    pid = int(pidfile.read_text())
    assert pid != server.pid
    master = processes.look(pid)
    assert master is not None and master.parent != server.pid
    assert http.get(address, "/").status == 200
    until(lambda: '"GET / HTTP/1.1" 200' in log.read_text(), "the access log is in the file")
    assert "rwsgi" not in server.log(), "the terminal is left alone"
    processes.kill(pid, 15)
    server.wait_gone()
    assert not pidfile.exists()
    assert "stopping after the requests" in log.read_text()


@pytest.mark.parametrize(("option", "arguments"), [
    ("daemonize", ["--socket", "/nonexistent/site.sock", "--wsgi-file", "worklife.py"]),
    ("daemonize2", ["--socket", "@rwsgi-tests-unused", "--wsgi-file", "missing.py"]),
])
def test_a_start_that_fails_is_told_where_it_was_started(serve, tmp_path, option, arguments):
    log = tmp_path / "site.log"
    log.write_text("an older line\n")
    server = serve.run(*arguments, f"--{option}", log)
    assert server.wait_exit() != 0
    assert re.search("ERROR", server.log())
    assert "an older line" not in server.log()


@pytest.mark.parametrize(("variable", "name"), [("SUPERVISOR_ENABLED", "supervisord"), ("NOTIFY_SOCKET", "systemd")])
def test_it_is_refused_under_a_supervisor(serve, address, tmp_path, variable, name):
    server = serve.start(
        "--http-socket", address, "--wsgi-file", "worklife.py", "--daemonize", tmp_path / "log", env={variable: "1"}
    )
    assert server.wait_exit() == 1
    assert f"daemonize: this process was started by {name}" in server.log()


@pytest.mark.parametrize("order", ["fifo", "touch"])
def test_a_new_log_file_begins_when_it_is_large_or_was_moved_away(serve, address, tmp_path, order):
    log, backup, fifo, touched = (tmp_path / name for name in ("site.log", "old.log", "fifo", "touched"))
    touched.touch()
    server = serve(
        *("--http-socket", address, "--wsgi-file", "worklife.py", "--processes", 2, "--logto", log),
        *("--log-maxsize", 4000, "--log-backupname", backup, "--master-fifo", fifo, "--touch-logreopen", touched),
    )
    while not backup.exists():
        assert http.get(address, "/?in=the-first").status == 200
    assert "the-first" in backup.read_text()
    until(log.exists, "a new file")
    moved = tmp_path / "moved.log"
    log.rename(moved)
    if order == "fifo":
        fifo.write_text("l\n")
    else:
        touched.write_text("as logrotate's postrotate does")
    until(log.exists, "the log is opened again")
    http.get(address, "/?in=the-last")
    until(lambda: "the-last" in log.read_text(), "lines of workers come into the new file")
    assert "the-last" not in moved.read_text()
    server.stop()
    assert server.log() == "", "nothing goes to the terminal"


def test_log_master_writes_what_workers_log(serve, address):
    server = serve("--http-socket", address, "--wsgi-file", "worklife.py", "--log-master")
    http.get(address, "/?through=the-master")
    server.logged("through=the-master")

