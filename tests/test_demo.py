"""The demo: a pool under load in rtop, and nothing left when rtop is left; ./demo at the root installs it first. What that decides
is in test_first_commands.py."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rig import http, processes, stats
from rig.addresses import listening
from rig.server import environment
from rig.terminal import table
from rig.waiting import until

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
DEMO = EXAMPLES / "demo.sh"
HTTP, STATS = "127.0.0.1:9090", "127.0.0.1:9191"

pytestmark = pytest.mark.only_rwsgi(why="it is rwsgi's demo")


@pytest.fixture(autouse=True)
def ports_of_the_demo():
    """The demo's ports are fixed: runs of these tests on one machine wait for one another."""
    mark = socket.socket(socket.AF_UNIX)

    def mine() -> bool:
        try:
            mark.bind("\0rwsgi-tests-demo")
        except OSError:
            return False
        return True

    until(mine, "the demo's ports are ours", deadline=240)
    yield
    mark.close()


def test_it_shows_a_pool_under_load_and_leaving_rtop_stops_everything(terminal, rtop, program):
    screen = terminal(["sh", DEMO], columns=180, rows=50)
    shown = screen.wait_for(lambda text: "WID" in text and sum(int(row["REQ"]) for row in table(text)) > 50, "requests")
    assert len(table(shown)) == 4
    until(lambda: stats.responses(stats.read(STATS))["2xx"] > 100, "many answers")
    screen.press("q")
    screen.wait_left()
    assert not listening(HTTP) and not listening(STATS)
    left = [process for process in processes.marked(screen.mark) if "rwsgi" in process.command or "demo" in process.command]
    # The shell of the terminal has the script's path in its command line.
    assert [process for process in left if not process.command.startswith(("sh -c", "tmux"))] == []


# On a busy machine: an environment is made.
@pytest.mark.timeout(600)
def test_the_first_command_of_the_readme_installs_it_before(terminal):
    wheels = ROOT / "target" / "wheels"
    this = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    if not list(wheels.glob(f"rwsgi-*-{this}-*.whl")) or not list(wheels.glob("rwsgi_top-*.whl")):
        # tests/run leaves them there.
        assert "CI" not in os.environ
        pytest.skip(f"there are no wheels for this Python in {wheels}, and to build takes minutes")
    env = {"PYTHON": sys.executable}
    done = subprocess.run([ROOT / "demo", "--prepare"], env=environment("demo-install", env), capture_output=True, text=True, timeout=480)
    assert done.returncode == 0, done.stderr
    screen = terminal([ROOT / "demo"], columns=180, rows=50, env=env)
    shown = screen.wait_for(lambda text: "WID" in text and sum(int(row["REQ"]) for row in table(text)) > 50, "requests")
    assert len(table(shown)) == 4
    screen.press("q")
    screen.wait_left()
    assert not listening(HTTP) and not listening(STATS)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_stops_everything(terminal, rtop, program, name):
    screen = terminal(["sh", DEMO], columns=180, rows=50)
    screen.wait("WID", "4 ")

    def scripts() -> list[processes.Process]:
        return [process for process in processes.marked(screen.mark) if process.command == f"sh {DEMO}"]

    # What the shell starts has its name for a moment.
    until(lambda: len(scripts()) == 1, "the script alone has its name", context=screen.screen)
    [script] = scripts()
    processes.kill(script.pid, getattr(signal, name))
    screen.wait_left(128 + getattr(signal, name))
    assert not listening(HTTP) and not listening(STATS)


def test_every_route_of_its_application_answers(serve, address):
    serve("--http-socket", address, "--wsgi-file", "demo.py", cwd=EXAMPLES)
    assert b"/slow?ms=500" in http.get(address, "/").body
    assert http.get(address, "/fast").body == b"fast\n"
    assert http.get(address, "/slow?ms=5").body == b"took 5 ms\n"
    assert http.get(address, "/fail").status == 500
    assert len(http.get(address, "/large?kb=300").body) == 300 * 1024
    assert http.get(address, "/stream?lines=3").body == b"line 0\nline 1\nline 2\n"
    assert http.request(address, "POST", "/upload", body=b"x" * 1000).body.startswith(b"1000 bytes, sha256 ")
    assert http.get(address, "/status?code=418").status == 418
    assert http.get(address, "/nothing").status == 404


@pytest.mark.parametrize("directory", ["flask", "django", "bottle"])
def test_the_example_files_start(serve, directory):
    """Their ports are the demo's kind: fixed, as a reader copies them."""
    serve(f"{directory}.ini", cwd=EXAMPLES / directory, listens=["127.0.0.1:8000", STATS])
    assert http.get("127.0.0.1:8000", "/").text == f"hello from {directory}\n"
    assert len(stats.read(STATS)["workers"]) == 4


def test_it_says_what_is_missing():
    done = subprocess.run(["/bin/sh", DEMO], capture_output=True, text=True, timeout=60, env={"PATH": "/nonexistent"})
    assert done.returncode == 1
    assert "rwsgi is not installed" in done.stderr and "./demo" in done.stderr


def test_it_says_when_a_port_is_taken(rtop, program):
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 9191))
        taken.listen()
        done = subprocess.run(
            ["sh", DEMO], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, env=environment("demo-taken")
        )
    assert done.returncode == 1
    assert "9191" in done.stderr and "in use" in done.stderr
    assert not processes.marked("demo-taken")
