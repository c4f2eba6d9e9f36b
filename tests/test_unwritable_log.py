"""A log that takes no more: a disk that is full, a reader that is gone. The server goes on, and so do its requests."""

from __future__ import annotations

import signal

import pytest

from rig import processes
from rig.addresses import listening
from rig.server import Program, Servers
from rig.site import KINDS, every_kind
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI's processes write to the file themselves")

# What standard error is, as bash writes it: every write fails with ENOSPC, or with EPIPE.
STANDARD_ERROR = {"a full disk": "/dev/full", "a pipe that nobody reads": ">(exec true)"}


@pytest.fixture(params=STANDARD_ERROR)
def cannot_log(request, program, tmp_path):
    """Starts servers that cannot write to their standard error."""
    wrapper = tmp_path / "cannot-log"
    wrapper.write_text(f'#!/usr/bin/env bash\nexec "{program.path}" "$@" 2> {STANDARD_ERROR[request.param]}\n')
    wrapper.chmod(0o755)
    servers = Servers(Program(str(wrapper)), tmp_path)
    yield servers
    servers.stop_all()


def test_a_server_serves_replaces_and_reloads_when_its_log_cannot_be_written(cannot_log, stats_at):
    sites = every_kind(cannot_log, "--wsgi-file", "probe.py", "--processes", 2, "--stats", stats_at)
    server = sites["http"].server
    before = [worker["pid"] for worker in server.wait_workers(2)["workers"]]
    for process in server.processes():
        if process.pid != server.pid:
            processes.kill(process.pid)
    server.wait_stats(
        lambda document: all(w["accepting"] and w["pid"] not in (0, *before) for w in document["workers"]),
        "all are replaced",
    )
    server.send(signal.SIGHUP)
    server.wait_stats(lambda document: document["generation"] == 2, "the next generation serves")
    for site in sites.values():
        until(lambda: site.get("/pid").status == 200, f"an answer on {site.kind}")
    server.send(signal.SIGTERM)
    assert server.wait_exit() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_master_that_wrote_the_log_takes_no_request_with_it(serve, tmp_path, record, kind):
    site = every_kind(serve, "--wsgi-file", "probe.py", "--threads", 3, "--logto", tmp_path / "log")[kind]
    go = tmp_path / "go"
    begun = [site.open("GET", f"/slow?go={go}&record={record.path}") for _ in range(2)]
    record.wait(2)
    processes.kill(site.server.pid)
    site.server.wait_exit()
    # Each process sees for itself that the master is gone (a worker with a thread that is free), and says so.
    until(lambda: not listening(site.address), "nobody listens any longer")
    go.touch()
    for connection in begun:
        assert connection.response().status == 200
        connection.close()
    site.server.wait_gone()
