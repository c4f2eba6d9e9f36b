"""A number of workers that follows the load: cheaper, idle, cheap."""

from __future__ import annotations

import os
import resource

import pytest

from rig import http
from rig.load import Load
from rig.site import KINDS, every_kind
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI decides by what it samples")


def statuses(server) -> list[str]:
    return [worker["status"] for worker in server.stats()["workers"]]


def running(server) -> int:
    return sum(status != "cheap" for status in statuses(server))


@pytest.mark.parametrize("algorithm", ["spare", "backlog", "busyness"])
def test_workers_come_with_the_load_and_go_with_it(serve, stats_at, tmp_path, algorithm):
    site = every_kind(
        serve, "--wsgi-file", "worklife.py", "--processes", 4, "--cheaper", 1, "--cheaper-step", 2,
        "--cheaper-algo", algorithm, "--cheaper-overload", 1, "--cheaper-busyness-multiplier", 2,
        "--cheaper-busyness-verbose", "--stats", stats_at,
    )["http-socket"]
    server, go = site.server, tmp_path / "go"
    server.wait_workers(1)
    assert statuses(server)[1:] == ["cheap"] * 3
    held = [site.open("GET", f"/?until={go}") for _ in range(6)]
    until(lambda: running(server) == 4, "every worker runs", context=server.log)
    go.touch()
    assert [connection.response().status for connection in held] == [200] * 6
    for connection in held:
        connection.close()
    # The last first; one that takes its time to leave may be cheap later than the one before it.
    until(lambda: statuses(server)[3] == "cheap", "the last is stopped", deadline=60, context=server.log)
    until(lambda: server.stats()["workers"][3]["recycled"]["idle"] == 1, "the end is counted", context=server.log)
    assert site.get("/").status == 200


def test_an_emergency_worker_goes_after_its_own_multiplier(serve, stats_at, tmp_path):
    """Utilization alone neither adds a worker here nor lets one go."""
    site = every_kind(
        serve, "--wsgi-file", "worklife.py", "--processes", 3, "--cheaper", 1, "--cheaper-algo", "busyness",
        "--cheaper-overload", 1, "--cheaper-busyness-max", 100, "--cheaper-busyness-multiplier", 10_000,
        "--cheaper-busyness-backlog-alert", 1, "--cheaper-busyness-backlog-step", 2,
        "--cheaper-busyness-backlog-multiplier", 2, "--cheaper-busyness-verbose", "--stats", stats_at,
    )["http-socket"]
    server, go = site.server, tmp_path / "go"
    server.wait_workers(1)
    held = [site.open("GET", f"/?until={go}") for _ in range(6)]
    until(lambda: running(server) == 3, "both emergency workers run", context=server.log)
    go.touch()
    assert [connection.response().status for connection in held] == [200] * 6
    for connection in held:
        connection.close()
    until(lambda: running(server) == 1, "they are stopped", deadline=60, context=server.log)


def test_connections_that_wait_long_bring_an_emergency_worker(serve, stats_at, tmp_path):
    site = every_kind(
        serve, "--wsgi-file", "worklife.py", "--processes", 2, "--cheaper", 1, "--cheaper-algo", "busyness",
        "--cheaper-overload", 1, "--cheaper-busyness-max", 100, "--cheaper-busyness-backlog-alert", 1000,
        "--cheaper-busyness-backlog-nonzero", 1, "--stats", stats_at,
    )["http-socket"]
    go = tmp_path / "go"
    site.server.wait_workers(1)
    held = [site.open("GET", f"/?until={go}") for _ in range(4)]
    until(lambda: running(site.server) == 2, "an emergency worker runs", context=site.server.log)
    go.touch()
    assert [connection.response().status for connection in held] == [200] * 4
    for connection in held:
        connection.close()


def test_a_worker_that_was_let_go_too_early_is_told_of(serve, stats_at, tmp_path):
    site = every_kind(
        serve, "--wsgi-file", "worklife.py", "--processes", 2, "--cheaper", 1, "--cheaper-algo", "busyness",
        "--cheaper-overload", 1, "--cheaper-busyness-max", 40, "--cheaper-busyness-min", 20,
        "--cheaper-busyness-multiplier", 6, "--cheaper-busyness-penalty", 4, "--cheaper-busyness-verbose",
        "--stats", stats_at,
    )["http-socket"]
    server = site.server
    for round_ in (1, 2):
        go = tmp_path / f"go{round_}"
        with site.open("GET", f"/?until={go}") as held:
            until(lambda: running(server) == 2, "a second worker runs", context=server.log)
            go.touch()
            assert held.response().status == 200
        if round_ == 1:
            server.logged("0 quiet looks of 6,")
            until(lambda: running(server) == 1, "it is stopped", deadline=60, context=server.log)
    # 6 looks, within which the second round has begun, and the penalty of 4.
    server.logged("quiet looks of 10,")


def test_more_workers_can_begin_than_the_fewest(serve, address, stats_at):
    server = serve(
        "--http-socket", address, "--wsgi-file", "worklife.py", "--processes", 5, "--cheaper", 1,
        "--cheaper-initial", 3, "--stats", stats_at,
    )
    server.wait_workers(3)
    assert statuses(server)[3:] == ["cheap"] * 2


@pytest.mark.parametrize("kind", KINDS)
def test_without_work_no_worker_runs_and_the_first_request_wakes_them(serve, stats_at, kind):
    site = every_kind(
        serve, "--wsgi-file", "worklife.py", "--processes", 2, "--cheap", "--idle", 1, "--stats", stats_at
    )[kind]
    server = site.server
    server.logged("cheap: no worker runs")
    assert statuses(server) == ["cheap"] * 2
    for round_ in (1, 2):
        assert site.get("/").status == 200
        server.logged("a request has come: starting workers", round_)
        # Stats of the first moment may know of no worker yet.
        server.logged("idle: no worker runs", round_)
        until(lambda: running(server) == 0, "they go again", context=server.log)
    protocol = "uwsgi" if kind == "socket" else "http"
    with Load(site.address, "/", clients=4, protocol=protocol) as load:
        load.wait_good(50)
    assert not load.lost


def test_a_reload_of_a_sleeping_server_wakes_nobody(serve, address, stats_at):
    server = serve(
        "--http-socket", address, "--wsgi-file", "worklife.py", "--processes", 2, "--cheap", "--stats", stats_at
    )
    server.logged("cheap: no worker runs")
    server.send(1)
    until(lambda: server.stats()["generation"] == 2, "the next generation", context=server.log)
    assert running(server) == 0
    assert http.get(address, "/").status == 200
    # The answer may come before the second worker is there.
    until(
        lambda: {worker["generation"] for worker in server.stats()["workers"]} == {2},
        "both workers serve the next generation",
        context=server.log,
    )


def test_a_server_that_cannot_watch_its_sockets_goes_on_serving(serve, address, record, tmp_path):
    """Out of descriptors it could not see that somebody connects: then the workers stay."""
    server = serve("--http-socket", address, "--wsgi-file", "probe.py", "--idle", 1)
    go = tmp_path / "go"
    # A request in progress keeps it from being idle before the limit is set.
    with http.Connection(address, timeout=60) as busy:
        busy.send(f"GET /slow?record={record.path}&go={go} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        record.wait()
        taken = {int(number) for number in os.listdir(f"/proc/{server.pid}/fd")}
        free = next(number for number in range(1_000_000) if number not in taken)
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (free, free))
        go.touch()
        assert busy.response().status == 200
    server.logged("cannot (be )?watch")
    assert http.get(address, "/pid").status == 200
