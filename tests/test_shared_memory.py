"""Workers that corrupt the memory that they share with the master: it keeps running, logs it, and replaces them."""

from __future__ import annotations

import pytest

from rig import http, processes
from rig.http import Closed
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI believes what its workers leave in shared memory")


def serves(server, address: str) -> int:
    """Waits until the application answers, and returns the process that did."""

    def answered() -> int:
        # A worker that is replaced may close on what it was sent.
        try:
            response = http.get(address, "/")
        except Closed:
            return 0
        return int(response.body) if response.status == 200 else 0

    return until(answered, "an answer", context=server.log)


@pytest.mark.parametrize("kind", ["http", "http-socket"])
@pytest.mark.parametrize("seed", range(4))
def test_a_scoreboard_full_of_garbage_costs_the_workers_that_are_named_and_not_the_server(
    serve, address, stats_at, tmp_path, kind, seed
):
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    server = serve(
        f"--{kind}", address, "--wsgi-file", "spoiler.py", "--processes", 2, "--threads", 2, "--stats", stats_at,
        "--spooler", jobs, "--harakiri", 60, "--cheaper", 1, "--master",
    )
    before = serves(server, address)
    written = http.get(address, f"/?fill=rwsgi-scoreboard&seed={seed}").body
    assert int(written) > 100_000
    for _ in range(3):
        document = server.stats()
        assert len(document["workers"]) == 2
    server.logged(r"worker 1 \(pid \d+\): .*shared memory.*: replacing it")
    until(lambda: serves(server, address) != before, "another process serves", context=server.log)
    server.wait_stats(lambda d: all(w["busy_time"] < 600e6 and w["requests"] < 1e6 for w in d["workers"]), "sane counts")
    assert len(server.lines(f"(pid {before}): its part of the shared memory")) == 1
    assert processes.alive(server.pid)


def test_harakiri_sees_garbage_although_nobody_asks_for_stats(serve, address):
    server = serve("--http-socket", address, "--wsgi-file", "spoiler.py", "--harakiri", 5)
    before = serves(server, address)
    http.get(address, "/?fill=rwsgi-scoreboard&seed=0")
    server.logged(rf"worker 1 \(pid {before}\): its part of the shared memory is corrupt")
    until(lambda: serves(server, address) != before, "another process serves", context=server.log)


@pytest.mark.parametrize("name", ["rwsgi-scoreboard", "rwsgi-board", "rwsgi-cache"])
@pytest.mark.parametrize("size", [0, 1 << 30])
def test_shared_memory_keeps_its_size_whatever_a_worker_does(serve, address, stats_at, name, size):
    server = serve(
        "--http-socket", address, "--wsgi-file", "spoiler.py", "--stats", stats_at, "--metric", "name=sold",
        "--cache2", "name=c,items=10", "--locks", 2,
    )
    assert http.get(address, f"/?resize={name}&size={size}").body == b"EPERM"
    document = server.stats()
    assert document["metrics"]["sold"]["value"] == 0
    assert http.get(address, "/").status == 200
