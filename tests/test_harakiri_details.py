"""When harakiri ends a request, and what its worker may still do."""

from __future__ import annotations

import time

import pytest

from rig import http, processes
from rig.waiting import until

LAST_WORDS = """
import os, signal, time

def say(number, frame):
    with open("said", "a") as file:
        file.write(f"{number} in {frame.f_code.co_name}\\n")

signal.signal(signal.SIGALRM, say)

def stuck():
    while not os.path.exists("enough"):
        time.sleep(0.01)

def application(environ, start_response):
    if environ["PATH_INFO"] == "/stuck":
        stuck()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


@pytest.fixture
def site(serve, address, tmp_path):
    (tmp_path / "last_words.py").write_text(LAST_WORDS)

    def start(*options):
        # The requests that are not stuck have time for it on a busy machine, too.
        return serve("--http-socket", address, "--master", "--wsgi-file", "last_words.py", "--harakiri", 5, *options, cwd=tmp_path)

    return start


def stuck(address):
    connection = http.Connection(address)
    connection.send(http.head("GET", "/stuck"))
    return connection


def test_a_handler_of_the_application_runs_before_the_worker_is_killed(site, address, tmp_path):
    server = site("--harakiri-graceful-timeout", 60, "--harakiri-graceful-signal", 14)
    old = int(http.get(address, "/").body)
    with stuck(address):
        said = tmp_path / "said"
        until(lambda: said.exists() and said.read_text(), "the handler has run", context=server.log)
        # The whole stack is there: the signal came before the kill.
        assert said.read_text() == "14 in stuck\n"
        assert processes.alive(old), "it has a minute"
        (tmp_path / "enough").touch()


def test_a_worker_that_does_not_end_in_time_is_killed(site, address):
    server = site("--harakiri-graceful-timeout", 1, "--harakiri-graceful-signal", 14)
    old = int(http.get(address, "/").body)
    with stuck(address):
        until(lambda: not processes.alive(old), "the worker is gone", context=server.log)
    assert int(http.get(address, "/").body) != old


def test_a_request_goes_on_while_nobody_waits(serve, address, stats_at, tmp_path):
    started = tmp_path / "started"
    server = serve(
        "--http-socket", address, "--master", "--wsgi-file", "worklife.py", "--harakiri", 1, "--harakiri-queue-threshold", 1,
        "--stats", stats_at,
    )
    old = int(http.get(address, "/").body)
    with http.Connection(address) as held:
        held.send(http.head("GET", f"/?started={started}&until={tmp_path / 'never'}"))
        until(started.exists, "the request has begun")
        begun = started.stat().st_mtime
        # Three times what it is allowed.
        until(lambda: time.time() - begun > 3, "it is old")
        assert processes.alive(old), server.log()
        with http.Connection(address) as waiting:
            waiting.send(http.head("GET", "/"))
            until(lambda: not processes.alive(old), "the worker is gone", context=server.log)
            assert waiting.response().status == 200
