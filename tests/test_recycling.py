"""Workers that have served enough, grown too large or too old: replaced, counted by reason, and no request lost."""

from __future__ import annotations

import pytest

from rig import http, processes
from rig.load import Load
from rig.site import KINDS, every_kind
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI recycles after its own delays, and tells no reasons")


def recycled(server, reason: str) -> int:
    return sum(worker["recycled"][reason] for worker in server.stats()["workers"])


def wait_recycled(server, reason: str, count: int = 1) -> None:
    until(lambda: recycled(server, reason) >= count, f"{count} recycled for {reason}", context=server.log)


@pytest.mark.parametrize("kind", KINDS)
def test_recycling_under_load_loses_no_request(serve, stats_at, kind):
    site = every_kind(
        serve, "--wsgi-file", "worklife.py", "--processes", 2, "--max-requests", 50, "--max-requests-delta", 7,
        "--stats", stats_at,
    )[kind]
    site.server.wait_workers(2)
    protocol = "uwsgi" if kind == "socket" else "http"
    for keep_alive in [False, True] if kind != "socket" else [False]:
        before = recycled(site.server, "max_requests")
        with Load(site.address, "/", clients=6, protocol=protocol, keep_alive=keep_alive) as load:
            wait_recycled(site.server, "max_requests", before + 4)
        assert not load.lost, f"{load.lost}\n{site.server.log()}"
    document = site.server.stats()
    assert sum(worker["recycled"]["crash"] for worker in document["workers"]) == 0


def test_a_worker_serves_no_fewer_requests_than_its_maximum(serve, address, stats_at):
    server = serve("--http-socket", address, "--wsgi-file", "worklife.py", "--max-requests", 5, "--stats", stats_at)
    first = [http.get(address, "/").body for _ in range(5)]
    assert len(set(first)) == 1
    wait_recycled(server, "max_requests")
    assert http.get(address, "/").body != first[0]
    server.logged(rf"worker 1 \(pid {first[0].decode()}\): max-requests: replacing it")


@pytest.mark.parametrize("kind", KINDS)
def test_the_old_worker_finishes_what_it_holds_while_its_successor_serves(serve, stats_at, tmp_path, kind):
    site = every_kind(
        serve, "--wsgi-file", "worklife.py", "--threads", 2, "--max-requests", 3, "--stats", stats_at
    )[kind]
    old = site.get("/").body
    started, go = tmp_path / "started", tmp_path / "go"
    with site.open("GET", f"/?started={started}&until={go}") as held:
        until(started.exists, "the slow request has begun")
        for _ in range(2):
            assert site.get("/").body == old
        until(lambda: site.get("/").body != old, "a successor serves", context=site.server.log)
        go.touch()
        answer = held.response()
    assert (answer.status, answer.body) == (200, old)
    wait_recycled(site.server, "max_requests")


SIZES = [("rss", 150, r"resident memory of \d{3} MB"), ("as", 1500, r"address space of \d{4} MB")]


@pytest.mark.parametrize(("size", "limit", "told"), SIZES)
def test_a_worker_that_grows_is_replaced_after_its_request(serve, address, stats_at, tmp_path, size, limit, told):
    server = serve(
        "--http-socket", address, "--wsgi-file", "worklife.py", f"--reload-on-{size}", limit, "--min-worker-lifetime", 0,
        "--stats", stats_at,
    )
    old = server.wait_workers(1)["workers"][0]["pid"]
    started, go = tmp_path / "started", tmp_path / "go"
    with http.Connection(address) as connection:
        connection.send(http.head("GET", f"/?grow={limit + 50}&started={started}&until={go}"))
        until(started.exists, "the request has begun")
        until(lambda: server.wait_workers(1)["workers"][0]["pid"] != old, "a successor serves", context=server.log)
        go.touch()
        assert connection.response().body == str(old).encode()
    wait_recycled(server, size)
    server.logged(rf"{told}, above reload-on-{size} \({limit}\)")
    assert http.get(address, "/").body != str(old).encode()


@pytest.mark.parametrize(("size", "limit", "told"), SIZES)
def test_a_worker_that_grows_evilly_is_ended_with_its_request(serve, address, stats_at, tmp_path, size, limit, told):
    server = serve(
        "--http-socket", address, "--wsgi-file", "worklife.py", f"--evil-reload-on-{size}", limit,
        "--min-worker-lifetime", 0, "--stats", stats_at,
    )
    old = server.wait_workers(1)["workers"][0]["pid"]
    with http.Connection(address) as connection:
        connection.send(http.head("GET", f"/?grow={limit + 50}&until={tmp_path / 'never'}"))
        until(lambda: not processes.alive(old), "it is ended", context=server.log)
        with pytest.raises((http.Closed, ConnectionError)):
            connection.response()
    wait_recycled(server, size)
    server.logged(rf"{told}, above evil-reload-on-{size} \({limit}\)")
    assert http.get(address, "/").body != str(old).encode()


def test_a_young_worker_is_left_alone(serve, address, stats_at):
    server = serve(
        "--http-socket", address, "--wsgi-file", "worklife.py", "--processes", 2, "--reload-on-rss", 1,
        "--min-worker-lifetime", 3600, "--max-worker-lifetime", 7200, "--max-requests", 3, "--stats", stats_at,
    )
    for _ in range(20):
        assert http.get(address, "/").status == 200
    wait_recycled(server, "max_requests")
    assert recycled(server, "rss") == 0


def test_an_old_worker_is_replaced_and_loses_nothing(serve, address, stats_at):
    server = serve(
        "--http-socket", address, "--wsgi-file", "worklife.py", "--processes", 2, "--min-worker-lifetime", 0,
        "--max-worker-lifetime", 1, "--max-worker-lifetime-delta", 1, "--stats", stats_at,
    )
    with Load(address, "/", clients=4) as load:
        wait_recycled(server, "lifetime", 3)
    assert not load.lost


def test_no_process_outgrows_limit_as(serve, address, stats_at):
    server = serve(
        "--http-socket", address, "--wsgi-file", "worklife.py", "--limit-as", 1024, "--stats", stats_at,
    )
    pid = server.wait_workers(1)["workers"][0]["pid"]
    with open(f"/proc/{pid}/limits") as limits:
        line = next(line for line in limits if line.startswith("Max address space"))
    assert line.split()[3:5] == [str(1024 << 20)] * 2
    assert http.get(address, "/?grow=2048").status == 500
    server.logged("MemoryError")
    assert http.get(address, "/").body == str(pid).encode()
