"""A number of workers that follows their memory: cheaper-rss-limit-soft and -hard."""

from __future__ import annotations

import time

import pytest

from rig import http
from rig.waiting import until


def running(server) -> int:
    return sum(worker["status"] != "cheap" for worker in server.stats()["workers"])


@pytest.fixture
def start(serve, address, stats_at):
    def start(*options):
        return serve(
            "--http-socket", address, "--master", "--wsgi-file", "worklife.py", "--processes", 3, "--cheaper", 1,
            "--memory-report", "--stats", stats_at, *options,
        )

    return start


@pytest.mark.parametrize(("limit", "grows"), [(1, False), (1 << 40, True)])
def test_no_worker_is_added_beyond_the_soft_limit(start, address, tmp_path, limit, grows):
    server, go = start("--cheaper-rss-limit-soft", limit), tmp_path / "go"
    server.wait_workers(1)
    # uWSGI knows a worker's memory once it has served.
    assert http.get(address, "/").status == 200
    started = tmp_path / "started"
    held = [http.Connection(address) for _ in range(2)]
    for connection in held:
        connection.send(http.head("GET", f"/?started={started}&until={go}"))
    # Which of the two is first is the worker's to say.
    until(started.exists, "the only worker is busy")
    if grows:
        until(lambda: running(server) > 1, "one is added", context=server.log)
    else:
        begun = started.stat().st_mtime
        until(lambda: time.time() - begun > 3, "the load was looked at several times")
        assert running(server) == 1, server.log()
    go.touch()
    assert {connection.response().status for connection in held} == {200}
    for connection in held:
        connection.close()


def test_workers_go_beyond_the_hard_limit_but_for_the_last(start, address):
    server = start("--cheaper-initial", 3, "--cheaper-rss-limit-soft", 1, "--cheaper-rss-limit-hard", 2)

    def only_one() -> bool:
        assert http.get(address, "/").status == 200
        return running(server) == 1

    until(only_one, "one is left", context=server.log)
    assert http.get(address, "/").status == 200
