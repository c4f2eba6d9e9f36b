"""Pidfiles, the orders that go through them, and what is left behind after a stop."""

from __future__ import annotations

import os
import subprocess

import pytest

from rig import http, processes
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI signals whatever a pidfile names")




@pytest.fixture
def told(program):
    """Runs the program with an order."""

    def run(*arguments: object) -> subprocess.CompletedProcess:
        return subprocess.run([program.path, *map(str, arguments)], capture_output=True, text=True, timeout=30, check=False)

    return run


def test_a_server_is_reloaded_and_stopped_through_its_pidfile(serve, address, stats_at, tmp_path, told):
    pidfile = tmp_path / "site.pid"
    server = serve("--http-socket", address, "--wsgi-file", "worklife.py", "--stats", stats_at, "--pidfile", pidfile)
    assert int(pidfile.read_text()) == server.pid
    server.wait_workers(1)
    old = http.get(address, "/").body
    assert told("--reload", pidfile).returncode == 0
    until(lambda: http.get(address, "/").body != old, "another generation serves", context=server.log)
    assert told("--stop", pidfile).returncode == 0
    assert server.wait_exit() == 0
    assert pidfile.exists(), "without vacuum it stays"
    stale = told("--stop", pidfile)
    assert stale.returncode == 1
    assert "is stale" in stale.stderr


def test_a_stale_pidfile_is_never_killed_by(told, tmp_path):
    pidfile = tmp_path / "stale.pid"
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            pidfile.write_text(f"{other.pid}\n")
            for what in ("--stop", "--reload"):
                answer = told(what, pidfile)
                assert answer.returncode == 1
                assert f"process {other.pid} is 'sleep', not a rwsgi master" in answer.stderr
            assert processes.alive(other.pid)
        finally:
            other.kill()
    assert "cannot read the pidfile" in told("--stop", tmp_path / "missing.pid").stderr
    pidfile.write_text("-1")
    assert "is no pidfile" in told("--stop", pidfile).stderr


def test_a_pidfile_of_another_server_that_runs_is_not_taken_over(serve, address, stats_at, tmp_path, told):
    pidfile = tmp_path / "site.pid"
    first = serve("--http-socket", address, "--wsgi-file", "worklife.py", "--pidfile", pidfile)
    second = serve.run("--http-socket", stats_at, "--wsgi-file", "worklife.py", "--pidfile", pidfile)
    assert second.wait_exit() == 1
    assert f"belongs to a running server (process {first.pid})" in second.log()
    # A process that was started after the file was written cannot have written it.
    os.utime(pidfile, (1_000_000_000, 1_000_000_000))
    answer = told("--stop", pidfile)
    assert answer.returncode == 1
    assert "was started after it was written" in answer.stderr
    assert http.get(address, "/").status == 200


def test_vacuum_leaves_nothing_and_a_relative_pidfile_is_where_the_server_was_started(serve, tmp_path):
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "site.py").write_text(
        "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'ok']\n"
    )
    socket = tmp_path / "site.sock"
    server = serve(
        *("--http-socket", socket, "--chdir", "app", "--wsgi-file", "site.py", "--vacuum"),
        *("--pidfile", "one.pid", "--pidfile2", "two.pid"),
        cwd=tmp_path,
    )
    # The second is written when privileges are dropped, which is after the sockets are there.
    until(lambda: (tmp_path / "two.pid").exists() and (tmp_path / "two.pid").read_text(), "the second pidfile is there")
    assert [int((tmp_path / name).read_text()) for name in ("one.pid", "two.pid")] == [server.pid] * 2
    assert http.get(str(socket), "/").body == b"ok"
    server.stop()
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.suffix in (".pid", ".sock")) == []


def test_vacuum_also_follows_a_start_that_fails(serve, address, stats_at, tmp_path):
    serve("--http-socket", address, "--wsgi-file", "worklife.py")
    pidfile, socket = tmp_path / "site.pid", tmp_path / "site.sock"
    server = serve.run(
        *("--socket", socket, "--http", address, "--wsgi-file", "worklife.py", "--pidfile", pidfile, "--vacuum")
    )
    assert server.wait_exit() == 1
    assert not pidfile.exists()
    assert not socket.exists()


def test_socket_files_get_their_mode(serve, tmp_path):
    socket = tmp_path / "site.sock"
    serve("--socket", socket, "--wsgi-file", "worklife.py", "--chmod-socket=640", "--umask", "077")
    # It listens before it is given its mode.
    until(lambda: socket.stat().st_mode & 0o777 == 0o640, "its mode", context=lambda: oct(socket.stat().st_mode))
