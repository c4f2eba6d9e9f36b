"""What workers inherit of the process that loaded the application, and what they do not."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from rig import http
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI's workers are forked from its master")


def test_what_is_printed_while_loading_is_printed_once(serve, address, stats_at):
    server = serve(
        "--http-socket", address, "--wsgi-file", "loud.py", "--master", "--processes", 3, "--stats", stats_at
    )
    server.wait_workers(3)
    assert http.get(address, "/").body == b"ok"
    server.stop()
    assert server.log().count("half a line") == 1


def test_threads_started_while_loading_are_warned_of(serve, address):
    server = serve("--http-socket", address, "--wsgi-file", "loud.py", "--master")
    server.logged("threads.*lazy-apps")


def test_a_worker_has_no_end_of_the_fork_server_s_channel(serve, address, stats_at):
    server = serve("--http-socket", address, "--wsgi-file", "odd.py", "--master", "--stats", stats_at)
    pid = server.wait_workers(1)["workers"][0]["pid"]
    sockets = [entry for entry in Path(f"/proc/{pid}/fd").iterdir() if stat.S_ISSOCK(os.stat(entry).st_mode)]
    # The listener alone: stdin, stdout and stderr are none here.
    assert len(sockets) == 1, [os.readlink(entry) for entry in sockets]


def test_a_child_of_the_application_does_not_keep_the_worker_busy(serve, address, stats_at, tmp_path):
    """The child's copy of a connection keeps it alive, and what is watched of it, when the worker has closed its own."""
    server = serve("--http-socket", address, "--wsgi-file", "odd.py", "--master", "--stats", stats_at)
    pid = server.wait_workers(1)["workers"][0]["pid"]
    go = tmp_path / "go"

    def sleeps() -> bool:
        state = Path(f"/proc/{pid}/stat")
        return all(state.read_text().rpartition(")")[2].split()[0] == "S" for _ in range(50))

    with http.Connection(address) as connection:
        assert connection.request("GET", "/quick").status == 200
        assert connection.request("GET", f"/fork?go={go}").body == b"forked"
    until(sleeps, "the worker sleeps")
    assert http.get(address, "/quick").status == 200
    until(sleeps, "the worker sleeps")
    go.touch()


def test_what_is_registered_for_the_exit_runs_once_in_each_worker(serve, address, stats_at):
    server = serve(
        "--http-socket", address, "--wsgi-file", "loud.py", "--master", "--processes", 2, "--stats", stats_at
    )
    pids = {worker["pid"] for worker in server.wait_workers(2)["workers"]}
    server.stop()
    said = [int(line.rpartition(" ")[2]) for line in server.lines("loud.py leaves")]
    assert sorted(said) == sorted(pids)
