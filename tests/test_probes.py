"""What orchestrators and balancers ask: is the server alive, does it want requests."""

from __future__ import annotations

import os
import signal

import pytest

from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI has no probes")

APPLICATION = "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'ok']\n"


def test_the_stats_say_when_the_server_wants_requests_and_how_reloads_ended(serve, address, stats_at, tmp_path):
    file, gate = tmp_path / "app.py", tmp_path / "gate"
    os.mkfifo(gate)
    file.write_text(f"open({str(gate)!r}).read()\n{APPLICATION}")
    server = serve("--http-socket", address, "--wsgi-file", file, "--stats", stats_at, "--processes", 2)
    document = server.stats()
    assert (document["ready"], document["draining"]) == (False, False)
    gate.write_text("")
    document = server.wait_stats(lambda document: document["ready"], "ready")
    assert (document["draining"], document["reloads"]) == (False, {"done": 0, "failed": 0})
    file.write_text("1 / 0")
    server.send(signal.SIGHUP)
    server.wait_stats(lambda document: document["reloads"] == {"done": 0, "failed": 1}, "a failed reload")
    file.write_text(APPLICATION)
    server.send(signal.SIGHUP)
    document = server.wait_stats(lambda document: document["reloads"]["done"], "a reload that is done")
    assert (document["ready"], document["reloads"]) == (True, {"done": 1, "failed": 1})
    workers = [worker["pid"] for worker in document["workers"]]
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    server.wait_stats(lambda document: not document["ready"], "no worker that runs")
    for pid in workers:
        os.kill(pid, signal.SIGCONT)
    server.wait_stats(lambda document: document["ready"], "ready again")
