"""Requests that run too long: answered 504, their workers replaced, and nobody beside them harmed."""

from __future__ import annotations

import pytest

from rig import processes
from rig.http import Closed
from rig.site import KINDS, every_kind
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI closes the connection of a request that runs too long")


def count(server) -> int:
    return sum(worker["harakiri_count"] for worker in server.stats()["workers"])


def answered_by(site) -> int | None:
    """The process that answers a request; None when that took too long itself, on a busy machine."""
    answer = site.get("/")
    return int(answer.body) if answer.status == 200 else None


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_past_its_time_is_answered_504_and_its_worker_replaced(serve, stats_at, tmp_path, kind):
    site = every_kind(
        serve, "--wsgi-file", "worklife.py", "--harakiri", 1, "--harakiri-verbose", "--stats", stats_at
    )[kind]
    server = site.server
    # Not by a request, which may take longer than a second on a busy machine.
    old = server.wait_workers(1)["workers"][0]["pid"]
    with site.open("GET", f"/?stuck=here&until={tmp_path / 'never'}") as stuck:
        assert stuck.response().status == 504
    until(lambda: not processes.alive(old), "the stuck worker is gone", context=server.log)
    server.logged(r'worklife\.py", line \d+ in stuck_here')
    document = server.wait_stats(lambda document: document["workers"][0]["recycled"]["harakiri"], "it is counted")
    assert document["workers"][0]["recycled"]["harakiri"] == 1
    assert document["workers"][0]["recycled"]["crash"] == 0
    assert count(server) == 1
    [line] = server.lines("longer than the 1 s allowed")
    assert f"worker 1 (pid {old}) thread 0 holds GET /?stuck=…" in line
    assert until(lambda: answered_by(site), "another worker serves", context=server.log) != old


@pytest.mark.parametrize("kind", KINDS)
def test_the_innocent_beside_it_finish_and_new_requests_find_a_new_worker(serve, stats_at, tmp_path, kind):
    site = every_kind(
        serve, "--wsgi-file", "worklife.py", "--threads", 3, "--harakiri", 10, "--harakiri-verbose", "--stats", stats_at
    )[kind]
    server = site.server
    started, go = tmp_path / "started", tmp_path / "go"
    old = server.wait_workers(1)["workers"][0]["pid"]
    with site.open("GET", f"/?started={started}&until={tmp_path / 'never'}") as stuck:
        until(started.exists, "the stuck request has begun")
        # Younger by more than the successor takes to start, and early enough to begin beside it.
        until(lambda: any(core["req_info"].get("elapsed", 0) > 5_000_000
                          for core in server.stats()["workers"][0]["cores"]), "it is old")
        with site.open("GET", f"/?until={go}") as innocent:
            assert stuck.response().status == 504
            until(lambda: answered_by(site) not in (None, old), "a successor serves", context=server.log)
            assert processes.alive(old)
            go.touch()
            answer = innocent.response()
    assert (answer.status, int(answer.body)) == (200, old)
    until(lambda: not processes.alive(old), "the stuck worker is gone", context=server.log)
    assert count(server) == 1
    # The stack is the stuck thread's alone.
    assert len(server.lines("in stuck_here")) == 1


def test_a_response_that_has_begun_is_cut_off(serve, stats_at, tmp_path):
    sites = every_kind(serve, "--wsgi-file", "worklife.py", "--processes", 3, "--harakiri", 5, "--stats", stats_at)
    opened = {}
    for kind in KINDS:
        # One after another, each at a worker of its own; none of them takes long to begin.
        started = tmp_path / kind
        opened[kind] = sites[kind].open("GET", f"/?early=1&started={started}&until={tmp_path / 'never'}")
        until(started.exists, f"the one at {kind} has begun", context=sites[kind].server.log)
    for kind, stuck in opened.items():
        with stuck, pytest.raises(Closed):
            stuck.response()
            raise Closed("a uwsgi response without a length ends with its connection") if kind == "socket" else AssertionError


def test_requests_within_their_time_are_left_alone(serve, stats_at, tmp_path):
    sites = every_kind(
        serve, "--wsgi-file", "worklife.py", "--processes", 2, "--threads", 2, "--harakiri", 60, "--stats", stats_at
    )
    go = tmp_path / "go"
    held = [site.open("GET", f"/?until={go}") for site in sites.values()]
    go.touch()
    assert [connection.response().status for connection in held] == [200] * 3
    for connection in held:
        connection.close()
    assert count(sites["http"].server) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_waits_for_a_stuck_request_no_longer_than_harakiri(serve, stats_at, tmp_path, kind):
    site = every_kind(
        serve, "--wsgi-file", "worklife.py", "--harakiri", 2, "--reload-mercy", 600, "--stats", stats_at
    )[kind]
    started = tmp_path / "started"
    with site.open("GET", f"/?started={started}&until={tmp_path / 'never'}") as stuck:
        until(started.exists, "the request has begun")
        site.server.send(15)
        assert stuck.response().status == 504
        assert site.server.wait_exit() == 0


LATE_SIGNAL = """
import os, signal, time

def exists(name):
    return os.path.exists(os.path.join(os.environ["WHERE"], name))

if exists("slow"):
    end = time.monotonic() + 60
    while not exists("go") and time.monotonic() < end:
        time.sleep(0.01)

# The one by which the master has a thread answer.
ANSWER = {signal.SIGRTMIN + 4}

def application(environ, start_response):
    if environ["PATH_INFO"] == "/late":
        signal.pthread_sigmask(signal.SIG_BLOCK, ANSWER)
        while not exists("end"):
            time.sleep(0.01)
    else:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ANSWER)
    start_response("200 OK", [("Content-Length", "4")])
    return [environ["PATH_INFO"][1:].encode()]
"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_signal_that_comes_late_does_not_answer_the_next_request(serve, stats_at, tmp_path, kind):
    """The system may deliver it when the request that it was for has ended: here the application holds it up until then."""
    (tmp_path / "late.py").write_text(LATE_SIGNAL)
    site = every_kind(
        serve, "--wsgi-file", tmp_path / "late.py", "--lazy-apps", "--harakiri", 5, "--stats", stats_at,
        env={"WHERE": str(tmp_path)},
    )[kind]
    site.server.wait_workers(1)
    # The successor is not to be ready before the old one has served once more.
    (tmp_path / "slow").touch()
    try:
        with site.open("GET", "/late") as late:
            site.server.logged("longer than the 5 s allowed")
            (tmp_path / "end").touch()
            assert late.response().status == 200
        answer = site.get("/next")
        assert (answer.status, answer.text) == (200, "next"), site.server.log()
    finally:
        (tmp_path / "go").touch()
