"""A real supervisord starts, restarts and stops the server, as the guides have it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rig import http, processes
from rig.server import APPS, environment
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI reloads on SIGTERM")

SUPERVISORD = Path(sys.prefix) / "bin" / "supervisord"


@pytest.fixture
def supervised(program, tmp_path):
    """Runs a `[program:my]`; gives its control program."""
    found = next((str(path) for path in (SUPERVISORD, Path("/usr/bin/supervisord")) if path.exists()), None)
    if found is None:
        pytest.skip("supervisord is not installed")
    mark = f"supervised-{os.getpid()}"
    config = tmp_path / "supervisord.conf"
    running = []

    def start(*arguments: object):
        command = " ".join([program.path, *map(str, arguments)])
        config.write_text(
            f"[unix_http_server]\nfile={tmp_path}/s.sock\n[supervisorctl]\nserverurl=unix://{tmp_path}/s.sock\n"
            "[rpcinterface:supervisor]\n"
            "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
            f"[supervisord]\nlogfile={tmp_path}/s.log\npidfile={tmp_path}/s.pid\nnodaemon=true\n"
            f"[program:my]\ncommand={command}\ndirectory={APPS}\nautostart=true\nautorestart=true\n"
            f"stopasgroup=true\nkillasgroup=true\nstopwaitsecs=10\nredirect_stderr=true\nstdout_logfile={tmp_path}/my.log\n"
        )
        output = (tmp_path / "supervisord.out").open("wb")
        with output:
            running.append(subprocess.Popen(
                [found, "-c", str(config)], env=environment(mark), stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT,
            ))

        def control(*words: str) -> str:
            script = str(Path(found).with_name("supervisorctl"))
            return subprocess.run(
                [script, "-c", str(config), *words], capture_output=True, text=True, timeout=60, check=False
            ).stdout

        return control

    yield start
    for process in running:
        process.terminate()
        process.wait(60)
    until(lambda: not processes.marked(mark), "nothing is left", context=lambda: str(processes.marked(mark)))


@pytest.mark.parametrize("option", ["--http", "--http-socket"])
def test_supervisord_starts_restarts_and_stops(supervised, address, tmp_path, option):
    control = supervised(option, address, "--wsgi-file", "worklife.py", "--processes", 2, "--threads", 2)
    log = tmp_path / "my.log"

    def answers() -> bool:
        try:
            return http.get(address, "/").status == 200
        except OSError:
            return False

    def context() -> str:
        return log.read_text() if log.exists() else ""

    until(answers, "it serves", context=context)
    until(lambda: "RUNNING" in control("status"), "supervisord is content")
    # A request in progress is finished, although the whole group is told to stop.
    started, go = tmp_path / "started", tmp_path / "go"
    with http.Connection(address) as connection:
        connection.send(http.head("GET", f"/?started={started}&until={go}"))
        until(started.exists, "the request has begun")
        stop = threading.Thread(target=control, args=("stop", "my"))
        stop.start()
        until(lambda: "SIGTERM: stopping" in context(), "the master stops", context=context)
        go.touch()
        assert connection.response().status == 200
        stop.join(60)
    assert "STOPPED" in control("status")
    assert "died" not in context(), context()
    control("start", "my")
    until(answers, "it serves again", context=context)
    assert "my: started" in control("restart", "my")
    until(answers, "and again", context=context)
