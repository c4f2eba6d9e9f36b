"""Workers that are told to leave before they can handle the signal: while they load the application, or have just been forked."""

from __future__ import annotations

import signal

import pytest

from rig import http, processes
from rig.site import Record
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI's workers handle it at once, and drop what they load")

# Longer than any test waits: a worker that missed it would stay.
MERCY = ("--reload-mercy", 3600)
FAST = """
import os

def application(environ, start_response):
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]
"""
SLOW = """
import os, time
with open({loading!r}, "a") as file:
    file.write(f"{{os.getpid()}}\\n")
end = time.monotonic() + 60
while not os.path.exists({go!r}) and time.monotonic() < end:
    time.sleep(0.005)
"""


@pytest.fixture
def slow(tmp_path):
    """An application that loads until the test says go on, and who is loading it."""
    loading = Record(tmp_path / "loading")
    return SLOW.format(loading=str(loading.path), go=str(tmp_path / "go")) + FAST, loading, tmp_path / "go"


def test_a_stop_while_workers_load_is_heard_when_they_have(serve, address, tmp_path, slow):
    text, loading, go = slow
    (tmp_path / "site.py").write_text(text)
    server = serve(
        "--http-socket", address, "--wsgi-file", "site.py", "--lazy-apps", "--processes", 2, *MERCY, cwd=tmp_path
    )
    loading.wait(2)
    server.send(signal.SIGTERM)
    server.logged("stopping")
    go.touch()
    assert server.wait_exit() == 0
    assert "did not leave in time" not in server.log()


def test_a_worker_that_is_overtaken_while_it_loads_leaves_when_it_has(serve, address, stats_at, tmp_path, slow):
    text, loading, go = slow
    site = tmp_path / "site.py"
    site.write_text(FAST)
    server = serve(
        *("--http-socket", address, "--wsgi-file", "site.py", "--lazy-apps", "--processes", 2, "--stats", stats_at),
        *MERCY,
        cwd=tmp_path,
    )
    server.wait_workers(2)
    site.write_text(text)
    server.send(signal.SIGHUP)
    overtaken = {int(pid) for pid in loading.wait(2)}
    site.write_text(FAST)
    server.send(signal.SIGHUP)
    server.wait_stats(lambda document: {w["generation"] for w in document["workers"]} == {3}, "generation 3 serves")
    assert all(processes.alive(pid) for pid in overtaken)
    go.touch()
    until(lambda: not any(map(processes.alive, overtaken)), "they have left", context=server.log)
    assert "did not leave in time" not in server.log()
    assert int(http.get(address, "/").body) not in overtaken


def test_reloads_and_a_stop_that_follow_each_other_at_once_leave_nobody(serve, address, stats_at, tmp_path):
    (tmp_path / "site.py").write_text(FAST)
    for _ in range(5):
        server = serve(
            *("--http-socket", address, "--wsgi-file", "site.py", "--processes", 4, "--stats", stats_at), *MERCY, cwd=tmp_path
        )
        server.wait_workers(4)
        server.send(signal.SIGHUP)
        server.logged("generation 2 takes over")
        # Its workers are being forked, or are about to listen.
        server.send(signal.SIGTERM)
        assert server.wait_exit() == 0
        server.wait_gone()
