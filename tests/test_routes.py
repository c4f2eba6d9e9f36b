"""Requests are counted by route: what the application calls it, or the pattern of the path."""

from __future__ import annotations

import os
import re
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from rig import http, processes, stats, uwsgi
from rig.addresses import tcp
from rig.site import KINDS, Site, every_kind
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI does not count by route")

NAMED = ("--wsgi-file", "named.py", "--disable-logging")
OTHER = "(other)"


def routes(document: stats.Document) -> dict[str, stats.Document]:
    return {row["route"]: row for row in document["routes"]}


def counts(document: stats.Document) -> dict[str, int]:
    return {row["route"]: row["requests"] for row in document["routes"]}


def all_counted(server, sent: int) -> stats.Document:
    """The document in which every request is counted, both as a worker's and as a route's."""
    return server.wait_stats(
        lambda document: stats.total(document, "requests") == sum(counts(document).values()) == sent, f"{sent} counted"
    )


def test_the_parts_of_a_path_that_vary_are_told_as_one_route(serve, stats_at):
    sites = every_kind(serve, *NAMED, "--stats", stats_at)
    targets = ["/users/1/orders", "/users/22/orders?page=3", "/users/me/orders", "/", "/o/3fa85f64-5717-4562-b3fc-2c963f66afa6"]
    for site in sites.values():
        for target in targets:
            assert site.get(target).status == 200
    document = all_counted(sites["http"].server, len(KINDS) * len(targets))
    assert counts(document) == {"/users/{}/orders": 6, "/users/me/orders": 3, "/": 3, "/o/{}": 3}
    row = routes(document)["/users/{}/orders"]
    assert not row["named"] and row["responses"]["2xx"] == 6
    assert row["busy_time"] > 0 and stats.histogram_total(row["latency"]) == 6
    assert row["tx"] > 6 * 20
    assert row["slowest"]["request"].startswith("GET /users/") and row["slowest"]["elapsed"] > 0
    assert sum(row["tx"] for row in document["routes"]) == stats.total(document, "tx")
    assert sum(row["busy_time"] for row in document["routes"]) <= stats.total(document, "running_time")


@pytest.mark.parametrize("kind", KINDS)
def test_the_application_tells_the_route(serve, stats_at, kind):
    site = every_kind(serve, *NAMED, "--stats", stats_at)[kind]
    for target in ("/logvar/1", "/call/x", "/environ/y", "/late/z", "/odd/1", "/plain/1"):
        site.get(target)
    document = all_counted(site.server, 6)
    told = {"by logvar": 1, "by call": 1, "by environ": 1, "told late": 1}
    assert counts(document) == {**told, "/odd/{}": 1, "/plain/{}": 1}
    assert {row["route"] for row in document["routes"] if row["named"]} == set(told)


def test_a_rule_s_logvar_tells_the_route_too(serve, stats_at, address):
    server = serve("--http-socket", address, *NAMED, "--stats", stats_at, "--route-uri", "^/ruled/ logvar:route=by rule")
    http.get(address, "/ruled/words")
    assert counts(all_counted(server, 1)) == {"by rule": 1}


def test_a_proxy_that_sends_no_uri_sends_a_path(serve, stats_at, address):
    server = serve("--socket", address, *NAMED, "--stats", stats_at)
    variables = [(name, value) for name, value in uwsgi.variables("GET", "/users/7") if name != "REQUEST_URI"]
    with http.Connection(address) as connection:
        connection.send(uwsgi.packet(variables))
        assert connection.response().status == 200
    assert counts(all_counted(server, 1)) == {"/users/{}": 1}


def test_a_request_in_progress_has_its_route(serve, stats_at, address, tmp_path):
    server = serve("--http-socket", address, *NAMED, "--stats", stats_at, "--threads", 2)
    go_on = tmp_path / "go"
    site = Site(server, "http-socket", address)
    with site.open("GET", f"/hold/1?{go_on}"), site.open("GET", f"/wait/2?{go_on}"):

        def running(document):
            infos = [core["req_info"] for worker in document["workers"] for core in worker["cores"]]
            return {info.get("route") for info in infos} == {"held ä �", "/wait/{}"}

        server.wait_stats(running, "both routes are told")
        go_on.touch()
        document = all_counted(server, 2)
    assert counts(document) == {"held ä �": 1, "/wait/{}": 1}


def test_exceptions_and_classes_are_told_by_route(serve, stats_at, address):
    server = serve("--http-socket", address, *NAMED, "--stats", stats_at)
    for number in range(3):
        assert http.get(address, f"/fail/{number}?token=secret").status == 500
    http.get(address, "/fine/1")
    document = all_counted(server, 4)
    row = routes(document)["/fail/{}"]
    assert (row["exceptions"], row["responses"]["5xx"], row["requests"]) == (3, 3, 3)
    assert row["last_exception"]["type"] == "ValueError" and "named.py" in row["last_exception"]["where"]
    assert routes(document)["/fine/{}"]["last_exception"] is None
    assert "secret" not in str(document["routes"])


def test_what_the_application_does_not_know_gets_no_row(serve, stats_at, address):
    server = serve("--http-socket", address, *NAMED, "--stats", stats_at)
    for number in range(5):
        assert http.get(address, f"/missing/word{'x' * number}").status == 404
    assert http.get(address, "/there").status == 200
    assert counts(all_counted(server, 6)) == {"/there": 1, OTHER: 5}


def test_files_are_one_route(serve, stats_at, address, tmp_path):
    (tmp_path / "files").mkdir()
    for name in ("a.css", "b.js"):
        (tmp_path / "files" / name).write_text("x")
    server = serve(
        "--http-socket", address, *NAMED, "--stats", stats_at, "--static-map", f"/static={tmp_path / 'files'}",
    )  # fmt: skip
    for name in ("a.css", "b.js", "a.css"):
        assert http.get(address, f"/static/{name}").body == b"x"
    http.get(address, "/static/none.css")
    assert counts(all_counted(server, 4)) == {"(static)": 3, "/static/none.css": 1}


def test_workers_add_up_and_a_killed_one_loses_no_count(serve, stats_at, address):
    server = serve("--http-socket", address, *NAMED, "--stats", stats_at, "--processes", 3)
    server.wait_workers(3)
    pids = set()
    sent = 0

    def all_have_served() -> bool:
        nonlocal sent
        pids.add(int(http.get(address, f"/items/{sent}").body))
        sent += 1
        return len(pids) == 3 and sent >= 60

    until(all_have_served, "every worker has served", context=lambda: f"{pids} of {sent} requests")
    assert counts(all_counted(server, sent)) == {"/items/{}": sent}
    http.get(address, "/items/1")
    victim = int(http.get(address, "/items/2").body)
    sent += 2
    until(lambda: stats.total(server.stats(), "requests") == sent, "both are counted")
    os.kill(victim, signal.SIGKILL)
    server.wait_stats(lambda document: victim not in {w["pid"] for w in document["workers"]}, "the worker is replaced")
    document = all_counted(server, sent)
    assert counts(document) == {"/items/{}": sent}
    assert stats.histogram_total(routes(document)["/items/{}"]["latency"]) == sent
    # Also what nobody has asked for before it died.
    server.wait_workers(3)
    victim = int(http.get(address, "/items/3").body)
    os.kill(victim, signal.SIGKILL)
    server.logged(rf"pid {victim}\) died")
    document = server.stats()
    assert sum(counts(document).values()) == stats.total(document, "requests")


def test_a_reload_keeps_the_counts(serve, stats_at, address):
    server = serve("--http-socket", address, *NAMED, "--stats", stats_at)
    http.get(address, "/a/1")
    generation = server.stats()["generation"]
    server.process.send_signal(signal.SIGHUP)
    server.wait_stats(
        lambda document: document["generation"] > generation and {w["generation"] for w in document["workers"]} == {generation + 1},
        "the next generation serves",
    )  # fmt: skip
    http.get(address, "/a/2")
    assert counts(all_counted(server, 2)) == {"/a/{}": 2}


def test_a_flood_of_made_up_paths_leaves_a_bounded_document_and_busy_routes_in_it(serve, stats_at, address):
    server = serve("--http-socket", address, *NAMED, "--stats", stats_at, "--route-stats", 20)
    letters = "ghijklmnopqrstuvwxyz"

    def word(number: int) -> str:
        return "".join(letters[number // 20**place % 20] for place in range(4))

    sent = 0
    with http.Connection(address) as connection:
        for number in range(4_000):
            targets = [f"/{word(number)}"] + (["/busy/1"] if number % 10 == 0 else [])
            for target in targets:
                assert connection.request("GET", target).status == 200
                sent += 1
    document = all_counted(server, sent)
    assert len(document["routes"]) <= 21
    assert counts(document)["/busy/{}"] >= 395
    assert document["routes"][-1]["route"] == OTHER and counts(document)[OTHER] > 3_900
    assert len(str(document["routes"])) < 40_000


def test_memory_that_grows_is_told_by_route_in_workers_of_one_thread(serve, stats_at, address):
    server = serve("--http-socket", address, *NAMED, "--stats", stats_at)
    for number in range(10):
        http.get(address, f"/grow/{number}")
        http.get(address, f"/still/{number}")

    def told(document):
        row = routes(document).get("/grow/{}")
        return row and row["memory_samples"] > 0 and row["memory_growth"] >= row["memory_samples"] * 3_000_000

    # Memory is looked at around some requests, of those that come close together.
    def grown():
        http.get(address, "/grow/9")
        return told(server.stats())

    until(grown, "growth is told", context=lambda: str(server.stats()["routes"]))
    two = tcp()
    threads = serve("--http-socket", two, *NAMED, "--stats", tcp(), "--threads", 2)
    http.get(two, "/grow/1")
    assert routes(all_counted(threads, 1))["/grow/{}"]["memory_samples"] == 0


def test_routes_can_be_left_out(serve, stats_at, address):
    server = serve("--http-socket", address, *NAMED, "--stats", stats_at, "--route-stats=off")
    http.get(address, "/call/1")
    document = server.wait_stats(lambda document: stats.total(document, "requests") == 1, "it is counted")
    assert "routes" not in document
    assert "rwsgi-routes" not in Path(f"/proc/{document['workers'][0]['pid']}/maps").read_text()


def test_metrics_tell_each_route_and_nothing_without_bound(serve, address):
    stats_at = tcp()
    serve("--http-socket", address, *NAMED, "--stats", stats_at, "--stats-http", "--route-stats", 5)
    for number in range(3):
        http.get(address, f"/users/{number}")
    http.get(address, "/fail/1")
    for number in range(30):
        http.get(address, "/" + "ghijklmnopqrstuvwxyz"[number % 20] * (2 + number // 20))

    def text() -> str:
        return http.get(stats_at, "/metrics").body.decode()

    until(lambda: sum(map(int, re.findall(r'^rwsgi_route_requests_total\{.*\} (\d+)$', text(), re.M))) == 34, "all are counted")
    lines = text().splitlines()
    assert 'rwsgi_route_requests_total{route="/users/{}"} 3' in lines
    assert 'rwsgi_route_exceptions_total{route="/fail/{}"} 1' in lines
    assert 'rwsgi_route_responses_total{route="/users/{}",class="2xx"} 3' in lines
    assert 'rwsgi_route_duration_seconds_count{route="/users/{}"} 3' in lines
    assert 'rwsgi_route_duration_seconds_bucket{route="/users/{}",le="+Inf"} 3' in lines
    assert len([line for line in lines if line.startswith("rwsgi_route_requests_total{")]) <= 6
    without = tcp()
    serve("--http-socket", tcp(), *NAMED, "--stats", without, "--stats-http", "--metrics-no-routes")
    assert "rwsgi_route_" not in http.get(without, "/metrics").body.decode()


def test_what_the_application_writes_there_by_mistake_is_not_believed(serve, stats_at, address):
    """Its tables are memory of the application's process, too."""
    server = serve("--http-socket", address, "--wsgi-file", "spoiler.py", "--stats", stats_at)
    for seed in range(4):
        [pid] = {worker["pid"] for worker in server.wait_workers(1)["workers"]}
        assert int(http.get(address, f"/?fill=rwsgi-routes&seed={seed}").body) > 0
        # The stats find it, and it serves until its successor does: what it gets meanwhile is no other's.
        until(lambda: server.stats() and not processes.alive(pid), "it is replaced", context=server.log)
    server.logged("its part of the shared memory is corrupt", 4)

    def counted():
        # A worker that is replaced may close on what it was sent, and what it counts is left out.
        with suppress(http.Closed):
            http.get(address, "/a/1")
        return counts(server.stats()).get("/a/{}")

    until(counted, "a new process is counted", context=server.log)
    assert all(row["requests"] < 1_000 and row["busy_time"] < 600e6 for row in server.stats()["routes"])
