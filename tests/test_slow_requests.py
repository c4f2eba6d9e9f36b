"""Slow requests: what is told of each is where its time went, and where its thread was meanwhile."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import sys
import sysconfig
import termios
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from rig import http, uwsgi
from rig.http import Connection, head
from rig.site import KINDS, every_kind
from rig.stats import histogram_total
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI has no such record")

# Short, so that tests are; all that they wait for is longer by far.
THRESHOLD = 0.3
PHASES = ("queue", "body", "gil", "application", "write")


def let_pass(seconds: float = 4 * THRESHOLD) -> None:
    """Lets a request be slow, and the server time to see it on a busy machine."""
    end = time.monotonic() + seconds
    until(lambda: time.monotonic() >= end, "some time has passed")


def slow(server, count: int = 1) -> list[dict]:
    """Slow requests, the newest first, when there are as many."""
    return server.wait_stats(lambda document: len(document["slow"]) >= count, f"{count} slow requests")["slow"]


def long_phase(record: dict) -> str:
    """The phase that took most of the time; together the phases are the whole."""
    assert sum(record["phases"].values()) == record["elapsed"]
    assert record["elapsed"] > THRESHOLD * 1e6
    name = max(PHASES, key=record["phases"].__getitem__)
    assert record["phases"][name] > record["elapsed"] / 2, record
    return name


def unread(pipe) -> int:
    """Bytes in a pipe that nobody has read."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


@pytest.fixture
def sites(serve, stats_at):
    """The application behind each kind of socket: one worker of one thread."""
    sites = every_kind(serve, "--wsgi-file", "sluggish.py", "--slow-request", f"{THRESHOLD}s", "--stats", stats_at)
    sites["http"].server.wait_workers(1)
    return sites


def hold(site, tmp_path, target: str = "/orders/7?secret=x") -> http.Response:
    """A request that is slow in the application."""
    go, started = tmp_path / "go", tmp_path / "started"
    with site.open("GET", f"{target}&until={go}&started={started}") as connection:
        until(started.exists, "it has begun")
        # The stack is there as soon as the request is slow.
        let_pass()
        go.touch()
        answer = connection.response()
    return answer


@pytest.mark.parametrize("kind", KINDS)
def test_a_slow_request_is_recorded_with_the_line_that_it_was_in(sites, tmp_path, kind):
    site = sites[kind]
    assert hold(site, tmp_path).status == 200
    [record] = slow(site.server)
    assert long_phase(record) == "application"
    assert (record["id"], record["method"], record["status"], record["outcome"]) == (1, "GET", 200, "done")
    assert record["uri"] == "/orders/7?secret=…&until=…&started=…"
    assert record["route"] == "/orders/{}"
    assert (record["worker"], record["core"], record["generation"]) == (1, 0, 1)
    assert record["pid"] == site.server.stats()["workers"][0]["pid"]
    assert record["exception"] == ""
    assert record["rss_before"] > 1 << 20 and record["rss_after"] > 1 << 20
    assert abs(record["started"] / 1e6 - time.time()) < 60
    assert THRESHOLD * 1e6 <= record["stack_at"] <= record["elapsed"]
    assert "sluggish.py:" in record["stack"][0] and record["stack"][0].endswith(" in wait_here"), record["stack"]
    assert record["stack"][1].endswith(" in application")
    site.server.logged(" slow: ")
    [line] = site.server.lines(" slow: ")
    assert "GET /orders/7?secret=…&until=…&started=…" in line and "status 200, worker 1 " in line
    assert "sluggish.py:" in line and " in wait_here < " in line
    assert site.server.stats()["limits"]["slow_request"] == THRESHOLD * 1e6


def test_a_thread_that_did_not_answer_is_asked_again(sites, tmp_path):
    """As one that gets no processor on a busy machine."""
    site = sites["http"]
    worker = site.server.stats()["workers"][0]["pid"]
    go, started = tmp_path / "go", tmp_path / "started"
    with site.open("GET", f"/?until={go}&started={started}") as connection:
        until(started.exists, "it has begun")
        os.kill(worker, signal.SIGSTOP)
        let_pass()
        os.kill(worker, signal.SIGCONT)
        let_pass()
        go.touch()
        assert connection.response().status == 200
    [record] = slow(site.server)
    assert record["stack"][0].endswith(" in wait_here"), record


def test_quick_requests_are_not_recorded_and_their_phases_are_counted(serve, stats_at):
    # A time that a busy machine does not make of a quick one.
    sites = every_kind(serve, "--wsgi-file", "sluggish.py", "--slow-request", "60s", "--stats", stats_at)
    server = sites["http"].server
    for kind in KINDS:
        for _ in range(5):
            assert sites[kind].get("/?a=b").status == 200
    document = server.wait_stats(lambda document: histogram_total(document["latency"]) == 15, "all are counted")
    assert document["slow"] == []
    assert {name: histogram_total(document["phases"][name]) for name in PHASES} == dict.fromkeys(PHASES, 15)


@pytest.mark.parametrize("kind", ["http", "http-socket"])
def test_a_body_that_comes_slowly_is_its_time(sites, kind):
    site = sites[kind]
    with Connection(site.address) as connection:
        connection.send(head("POST", "/", {"Content-Length": "10", "Connection": "close"}) + b"begun")
        let_pass()
        connection.send(b" ends")
        assert connection.response().body == b"10"
    [record] = slow(site.server)
    assert long_phase(record) == "body"
    # Its thread was busy for no time.
    assert record["stack"] == []


def test_a_body_on_the_uwsgi_socket_that_comes_slowly_is_its_time(sites):
    site = sites["socket"]
    with Connection(site.address) as connection:
        connection.send(uwsgi.packet(uwsgi.variables("POST", "/", {"Content-Length": "10"})) + b"begun")
        let_pass()
        connection.send(b" ends")
        assert connection.response().body == b"10"
    assert long_phase(slow(site.server)[0]) == "body"


def test_a_client_that_takes_the_response_slowly_is_sending(sites):
    site = sites["http-socket"]
    size = 40 << 20
    with site.open("GET", f"/?pieces={size}") as connection:
        let_pass()
        assert len(connection.response().body) == size
    record = slow(site.server)[0]
    assert long_phase(record) == "write"


@pytest.mark.skipif(bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="this Python has no global lock to wait for")
def test_a_thread_that_keeps_the_global_lock_is_waited_for(serve, stats_at, address, tmp_path):
    server = serve("--http-socket", address, "--wsgi-file", "sluggish.py", "--threads", 2, "--slow-request", THRESHOLD,
                   "--stats", stats_at)
    pipe, go = tmp_path / "pipe", tmp_path / "go"
    os.mkfifo(pipe)
    with Connection(address) as hog, Connection(address) as other:
        # Both threads are there.
        for connection in (hog, other):
            connection.send(head("GET", f"/?until={go}"))
        server.wait_stats(lambda document: sum(core["in_request"] for core in document["workers"][0]["cores"]) == 2, "busy")
        go.touch()
        assert (hog.response().status, other.response().status) == (200, 200)
        hog.send(head("GET", f"/hog?hog={pipe}"))
        with pipe.open("wb", buffering=0) as writer:
            writer.write(b"x")
            until(lambda: unread(writer) == 0, "the hog has the lock")
            other.send(head("GET", "/other"))
            let_pass()
            writer.write(b"x")
            assert (hog.response().status, other.response().status) == (200, 200)
    records = {record["uri"].split("?")[0]: record for record in server.wait_stats(
        lambda document: {"/hog", "/other"} <= {record["uri"].split("?")[0] for record in document["slow"]}, "both")["slow"]}
    assert long_phase(records["/hog"]) == "application"
    # It is found although no Python code can run.
    assert records["/hog"]["stack"][0].endswith(" in hog_here")
    assert long_phase(records["/other"]) == "gil"


def test_a_queue_of_the_http_router_is_known_by_its_own_clock(serve, stats_at, address, tmp_path):
    server = serve("--http", address, "--wsgi-file", "sluggish.py", "--slow-request", THRESHOLD, "--stats", stats_at)
    started, go = tmp_path / "started", tmp_path / "go"
    with Connection(address) as first, Connection(address) as second:
        first.send(head("GET", f"/first?started={started}&until={go}"))
        until(started.exists, "the only thread is busy")
        second.send(head("GET", "/second"))
        server.wait_stats(lambda document: document["queue"]["depth"] == 1, "the second waits")
        let_pass()
        go.touch()
        assert (first.response().status, second.response().status) == (200, 200)
    records = {record["uri"].split("?")[0]: record for record in slow(server, 2)}
    assert long_phase(records["/first"]) == "application"
    assert long_phase(records["/second"]) == "queue"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["t={:.3f}", "{:.3f}", "ms", "us"])
def test_what_a_proxy_says_of_when_it_took_the_request_is_believed(sites, kind, form):
    took = time.time() - 50
    value = {"ms": str(int(took * 1e3)), "us": str(int(took * 1e6))}.get(form) or form.format(took)
    assert sites[kind].get("/", {"X-Request-Start": value}).status == 200
    [record] = slow(sites[kind].server)
    assert long_phase(record) == "queue"
    assert 49e6 < record["phases"]["queue"] < 80e6
    assert abs(record["started"] / 1e6 - took) < 1


def test_a_request_that_waits_behind_another_is_known_by_what_its_proxy_says(sites, tmp_path):
    site = sites["http-socket"]
    started, go = tmp_path / "started", tmp_path / "go"
    with site.open("GET", f"/first?started={started}&until={go}") as first:
        until(started.exists, "the only thread is busy")
        with site.open("GET", "/second", {"X-Request-Start": f"t={time.time():.3f}"}) as second:
            let_pass()
            go.touch()
            assert (first.response().status, second.response().status) == (200, 200)
    records = {record["uri"].split("?")[0]: record for record in slow(site.server, 2)}
    assert long_phase(records["/second"]) == "queue"


@pytest.mark.parametrize("kind", ["http-socket", "socket"])
def test_a_request_that_comes_while_another_is_served_was_not_there_before(sites, tmp_path, kind):
    site = sites[kind]
    started, go, go_on, begun = (tmp_path / name for name in ("started", "go", "go_on", "begun"))
    with site.open("GET", f"/first?started={started}&until={go}") as first:
        until(started.exists, "the only thread is busy")
        let_pass()
        sent = time.time()
        with site.open("GET", f"/second?started={begun}&until={go_on}") as second:
            go.touch()
            until(begun.exists, "the second has begun")
            let_pass()
            go_on.touch()
            assert (first.response().status, second.response().status) == (200, 200)
    records = {record["uri"].split("?")[0]: record for record in slow(site.server, 2)}
    assert records["/second"]["started"] / 1e6 > sent - 0.5
    assert long_phase(records["/second"]) == "application"


@pytest.mark.parametrize("value", ["t={in_an_hour}", "{two_hours_ago}", "0", "yesterday", "t=", "1" * 200, "-1700000000"])
def test_what_no_proxy_says_is_not_believed(sites, value):
    now = time.time()
    forged = value.format(in_an_hour=now + 3600, two_hours_ago=now - 7200)
    for kind in ("http", "http-socket"):
        assert sites[kind].get("/", {"X-Request-Start": forged}).status == 200
    document = sites["http"].server.wait_stats(
        lambda document: histogram_total(document["phases"]["queue"]) == 2, "both are counted")
    assert document["slow"] == []


def test_what_the_application_raised_is_told(sites, tmp_path):
    assert hold(sites["http-socket"], tmp_path, "/boom?raise=no%20such%20order").status == 500
    [record] = slow(sites["http-socket"].server)
    assert (record["status"], record["outcome"]) == (500, "done")
    assert record["exception"] == "ValueError: no such order"
    sites["http-socket"].server.logged(" slow: .*raised ValueError: no such order")


def test_a_request_that_harakiri_ends_is_recorded(serve, stats_at, address, tmp_path):
    server = serve("--http-socket", address, "--wsgi-file", "sluggish.py", "--slow-request", THRESHOLD, "--harakiri", 1,
                   "--stats", stats_at)
    assert http.get(address, f"/stuck/9?until={tmp_path / 'never'}").status == 504
    [record] = slow(server)
    assert (record["outcome"], record["uri"]) == ("harakiri", "/stuck/9?until=…")
    assert long_phase(record) == "application"
    assert record["phases"]["application"] >= 1_000_000
    assert record["stack"][0].endswith(" in wait_here")
    server.logged(" slow: .*ended by harakiri")


def test_a_request_that_is_lost_with_its_worker_is_recorded(sites, tmp_path):
    site = sites["http-socket"]
    server, started = site.server, tmp_path / "started"
    with site.open("GET", f"/lost?started={started}&until={tmp_path / 'never'}") as connection:
        until(started.exists, "it has begun")
        let_pass()
        os.kill(server.stats()["workers"][0]["pid"], signal.SIGKILL)
        with pytest.raises(http.Closed):
            connection.response()
    [record] = slow(server)
    assert (record["outcome"], record["status"], record["uri"]) == ("died", 0, "/lost?started=…&until=…")
    assert long_phase(record) == "application"
    assert record["stack"][0].endswith(" in wait_here")
    assert server.wait_workers(1)["workers"][0]["pid"] != record["pid"]


def test_a_record_survives_its_worker(sites, tmp_path):
    site = sites["http-socket"]
    hold(site, tmp_path)
    before = slow(site.server)
    os.kill(site.server.stats()["workers"][0]["pid"], signal.SIGKILL)
    site.server.wait_workers(1)
    assert slow(site.server) == before


def test_a_line_for_programs_is_json(serve, stats_at, address, tmp_path):
    server = serve("--http-socket", address, "--wsgi-file", "sluggish.py", "--slow-request", THRESHOLD,
                   "--slow-request-log", "json", "--stats", stats_at)
    server.wait_workers(1)
    with Connection(address) as connection:
        go = tmp_path / "go"
        # What would command a terminal, or make a line.
        connection.send(head("GET", f"/a%0a\u009b?until={go}").replace(b"\x9b", b"\xc2\x9b"))
        let_pass()
        go.touch()
        connection.response()
    [record] = slow(server)
    server.logged(" slow: ")
    [line] = server.lines(" slow: ")
    assert json.loads(line.split(" slow: ", 1)[1]) == record


def test_without_the_option_there_is_a_record_and_no_line(serve, stats_at, address):
    server = serve("--http-socket", address, "--wsgi-file", "sluggish.py", "--stats", stats_at)
    assert http.get(address, "/", {"X-Request-Start": f"t={time.time() - 50:.3f}"}).status == 200
    assert long_phase(slow(server)[0]) == "queue"
    assert server.stats()["limits"]["slow_request"] == 1_000_000
    assert server.lines(" slow: ") == []


def test_with_a_threshold_of_0_nothing_is_slow(serve, stats_at, address):
    server = serve("--http-socket", address, "--wsgi-file", "sluggish.py", "--slow-request", 0, "--stats", stats_at)
    assert http.get(address, "/", {"X-Request-Start": f"t={time.time() - 50:.3f}"}).status == 200
    document = server.wait_stats(lambda document: document["workers"][0]["requests"] == 1, "it is counted")
    assert "slow" not in document
    assert document["limits"]["slow_request"] == 0


def test_the_threshold_changes_while_the_server_runs(serve, stats_at, address, tmp_path):
    control = tmp_path / "control"
    server = serve("--http-socket", address, "--wsgi-file", "sluggish.py", "--slow-request", "1h", "--stats", stats_at,
                   "--control", control)
    waited = {"X-Request-Start": f"t={time.time() - 50:.3f}"}

    def set_threshold(micros):
        with control_connection(control) as connection:
            connection.sendall(json.dumps({"do": "slow-request", "micros": micros}).encode() + b"\n")
            return json.loads(connection.makefile().readline())

    assert http.get(address, "/a", waited).status == 200
    # The only thread has judged the first when it answers the next.
    assert http.get(address, "/").status == 200
    assert "done" in set_threshold(1_000_000)
    assert http.get(address, "/b", waited).status == 200
    assert [record["uri"] for record in slow(server)] == ["/b"]
    assert server.stats()["limits"]["slow_request"] == 1_000_000
    assert "done" in set_threshold(0)
    assert http.get(address, "/c", waited).status == 200
    server.wait_stats(lambda document: document["workers"][0]["requests"] == 4 and "slow" not in document, "none is slow")


def control_connection(path: Path) -> socket.socket:
    """A connection to the control socket."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(30)
    connection.connect(str(path))
    return connection


def test_of_many_the_last_two_hundred_are_kept_and_none_is_lost_silently(serve, stats_at, address):
    server = serve("--http-socket", address, "--wsgi-file", "sluggish.py", "--slow-request", THRESHOLD, "--stats", stats_at)
    began = time.monotonic()
    # All at once: more than a thread keeps for the master.
    request = head("GET", "/", {"X-Request-Start": f"t={time.time() - 50:.3f}"})
    with Connection(address) as connection:
        connection.send(request * 500)
        for _ in range(500):
            assert connection.response().status == 200
    document = server.wait_stats(lambda document: document["slow"] and document["slow"][0]["id"] == 500, "all have numbers")
    ids = [record["id"] for record in document["slow"]]
    assert len(ids) <= 200 and ids == sorted(ids, reverse=True)
    if len(server.lines("are not recorded")) == 0:
        assert ids == list(range(500, 300, -1))
    # The log is bounded as well: 20 in ten seconds.
    assert len(server.lines(" slow: GET")) <= 20 * (1 + (time.monotonic() - began) // 10)


def test_stacks_are_taken_of_all_threads_that_are_slow(serve, stats_at, address, tmp_path):
    server = serve("--http-socket", address, "--wsgi-file", "sluggish.py", "--processes", 2, "--threads", 4, "--slow-request",
                   THRESHOLD, "--stats", stats_at)
    server.wait_workers(2)
    go, held = tmp_path / "go", []

    def all_are_in_requests(document) -> bool:
        return sum(core["in_request"] for worker in document["workers"] for core in worker["cores"]) == len(held)

    with ExitStack() as open_ones:
        # A worker keeps what it has accepted: each request is to find a thread that sleeps, of whichever worker.
        for _ in range(8):
            held.append(open_ones.enter_context(Connection(address)))
            held[-1].send(head("GET", f"/?until={go}"))
            server.wait_stats(all_are_in_requests, "all requests have a thread")
        let_pass()
        go.touch()
        assert [connection.response().status for connection in held] == [200] * 8
    records = slow(server, 8)
    assert {(record["worker"], record["core"]) for record in records} == {(w, c) for w in (1, 2) for c in range(4)}
    assert all(record["stack"] and record["stack"][0].endswith(" in wait_here") for record in records)


def test_garbage_collections_are_counted_when_that_is_asked_for(serve, stats_at, address):
    server = serve("--http-socket", address, "--wsgi-file", "sluggish.py", "--gc-stats", "--stats", stats_at)
    before = server.wait_workers(1)["workers"][0]["gc"]
    for _ in range(3):
        assert http.get(address, "/?collect=1").status == 200

    def all_are_counted(document) -> bool:
        counts = document["workers"][0]["gc"]
        # gc.collect() collects all generations. One number is written after the other.
        return (
            counts["by_generation"][2] >= before["by_generation"][2] + 3
            and counts["collected"] >= before["collected"] + 3
            and sum(counts["by_generation"]) == counts["collections"] >= before["collections"] + 3
            and 0 < counts["longest"] <= counts["time"]
        )

    [worker] = server.wait_stats(all_are_counted, "the collections are counted")["workers"]
    counts = worker["gc"]
    os.kill(worker["pid"], signal.SIGKILL)
    [after] = server.wait_stats(lambda document: document["workers"][0]["pid"] not in (0, worker["pid"]), "another")["workers"]
    assert after["gc"]["collections"] >= counts["collections"]


def test_garbage_collections_are_not_counted_otherwise(sites):
    assert "gc" not in sites["http"].server.stats()["workers"][0]


def test_an_idle_server_sleeps(serve, address):
    server = serve("--http-socket", address, "--wsgi-file", "sluggish.py", "--slow-request", "50ms")
    assert http.get(address, "/").status == 200

    def switches() -> int:
        status = Path(f"/proc/{server.pid}/status").read_text()
        return sum(int(line.split()[1]) for line in status.splitlines() if "ctxt_switches" in line)

    def sleeps() -> bool:
        before = switches()
        # Ten times what is slow.
        let_pass(0.5)
        return switches() == before

    until(sleeps, "the master is not woken for ten times what is slow", context=server.log)
