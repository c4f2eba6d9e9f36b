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

# Debian's own, and the one of the test environment.
SUPERVISORDS = [Path("/usr/bin/supervisord"), Path(sys.prefix) / "bin" / "supervisord"]
DEPLOY = Path(__file__).resolve().parent.parent / "deploy" / "supervisor" / "rwsgi.conf"
EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "django"
# As the guides have it: the server is killed right after it was told to stop.
IMPATIENT = """
[program:my]
command={command}
directory={directory}
startsecs=0
stopwaitsecs=0
autostart=true
autorestart=true
"""
# The same for a whole group of processes, with time to finish.
PATIENT = """
[program:my]
command={command}
directory={directory}
autostart=true
autorestart=true
stopasgroup=true
killasgroup=true
stopwaitsecs=60
"""


@pytest.fixture(params=SUPERVISORDS, ids=["debian", "environment"])
def supervised(request, program, tmp_path):
    """Runs a `[program:my]`; gives its control program."""
    if not request.param.exists():
        pytest.skip(f"{request.param} is not installed")
    found, mark = str(request.param), f"supervised-{os.getpid()}"
    config = tmp_path / "supervisord.conf"
    running = []

    def start(*arguments: object, section: str = PATIENT, directory: Path = APPS):
        command = " ".join([program.path, *map(str, arguments)])
        section = section.format(command=command, directory=directory)
        config.write_text(
            f"[unix_http_server]\nfile={tmp_path}/s.sock\n[supervisorctl]\nserverurl=unix://{tmp_path}/s.sock\n"
            "[rpcinterface:supervisor]\n"
            "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
            f"[supervisord]\nlogfile={tmp_path}/s.log\npidfile={tmp_path}/s.pid\nnodaemon=true\n"
            f"{section}redirect_stderr=true\nstdout_logfile={tmp_path}/my.log\n"
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


def answers(address: str) -> bool:
    try:
        return http.get(address, "/").text == "hello from django\n"
    except (OSError, http.Closed):
        return False


@pytest.mark.parametrize("ini", [False, True])
def test_django_is_run_by_the_guides_section(supervised, address, tmp_path, ini):
    """`stopwaitsecs=0` kills the master at once: nothing of it may keep the next one from starting."""
    arguments = ["--http", address, "--chdir", EXAMPLE, "--module", "demo.wsgi", "--processes", 2]
    if ini:
        file = tmp_path / "site.ini"
        file.write_text(f"[uwsgi]\nhttp-socket = {address}\nchdir = {EXAMPLE}\nmodule = demo.wsgi\nprocesses = 2\nmaster = true\n")
        arguments = ["--ini", file]
    control = supervised(*arguments, section=IMPATIENT, directory=EXAMPLE)

    def context() -> str:
        log = tmp_path / "my.log"
        return log.read_text() if log.exists() else ""

    until(lambda: answers(address), "Django answers", context=context)
    until(lambda: "RUNNING" in control("status"), "supervisord is content")
    for _ in range(3):
        assert "my: started" in control("restart", "my")
        until(lambda: answers(address), "Django answers again", context=context)
    control("stop", "my")
    assert "STOPPED" in control("status")
    # Its other processes notice that it was killed.
    until(lambda: not answers(address), "nobody answers", context=context)
    control("start", "my")
    until(lambda: answers(address), "Django answers once more", context=context)


def test_the_section_that_is_offered_does(supervised, address, tmp_path):
    text = DEPLOY.read_text()
    for example, real in [
        ("/srv/mysite/venv/bin/rwsgi --ini /srv/mysite/mysite.ini", "{command}"), ("directory=/srv/mysite", "directory={directory}"),
        ("redirect_stderr=true\nstdout_logfile=/var/log/supervisor/my.log\n", ""),
    ]:
        assert text.count(example) == 1
        text = text.replace(example, real)
    control = supervised("--http", address, "--module", "demo.wsgi", section=text, directory=EXAMPLE)
    until(lambda: answers(address), "Django answers")
    control("signal", "HUP", "my")
    until(lambda: "generation 2 takes over" in (tmp_path / "my.log").read_text(), "it reloads without a stop")
    assert answers(address)
    control("stop", "my")
    assert "STOPPED" in control("status")
