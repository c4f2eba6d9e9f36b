"""The stats server when the system has nothing left for it."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest

from rig.addresses import connect
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI's stats server is a thread of its own")


def waits(pid: int) -> int:
    """How often the process has gone to sleep by itself."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["voluntary_ctxt_switches"])


def test_a_connection_that_cannot_be_accepted_is_said_once_and_answered_later(serve, address, stats_at):
    server = serve("--http-socket", address, "--wsgi-file", "worklife.py", "--stats", stats_at)
    server.wait_workers(1)
    soft, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    # No further descriptor: those that are open stay so.
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (3, hard))
    with connect(stats_at) as client:
        server.logged("stats: connections cannot be accepted")
        before = waits(server.pid)
        until(lambda: waits(server.pid) >= before + 10, "ten more tries", context=server.log)
        assert len(server.lines("cannot be accepted")) == 1, server.log()
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (soft, hard))
        document = b"".join(iter(lambda: client.recv(65536), b""))
    assert json.loads(document)["workers"][0]["id"] == 1
    server.logged("stats: connections are accepted again")
