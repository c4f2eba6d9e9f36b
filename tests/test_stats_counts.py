"""Every count equals what the clients sent and got, over all workers, after tens of thousands of requests."""

from __future__ import annotations

import pytest

from rig import stats
from rig.load import Load
from rig.site import KINDS, every_kind
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI counts neither classes nor heads")

# What is asked how often, and the class of its answer.
MIX = {
    "/pid": (20_000, "2xx"),
    "/large?bytes=3000": (2_000, "2xx"),
    "/chunks": (200, "2xx"),
    "/status?code=204": (1_000, "2xx"),
    "/status?code=302": (1_000, "3xx"),
    "/status?code=404": (2_000, "4xx"),
    "/status?code=503": (500, "5xx"),
    "/fail?token=counted": (700, "5xx"),
}
# Without connections that stay open a client here is slower.
SHARE = {"http-socket": 1.0, "http": 1.0, "socket": 0.4}


@pytest.mark.parametrize("kind", KINDS)
def test_every_count_is_exact(serve, stats_at, kind):
    site = every_kind(serve, "--wsgi-file", "probe.py", "--processes", 4, "--threads", 2, "--stats", stats_at, "--disable-logging")[kind]
    server = site.server
    server.wait_workers(4)
    protocol = "uwsgi" if kind == "socket" else "http"
    loads = []
    for target, (count, class_) in MIX.items():
        total = int(count * SHARE[kind])
        expected = int(class_[0])
        loads.append(
            Load(
                site.address, target, clients=1 if total < 2_000 else 3, total=total, keep_alive=True, protocol=protocol,
                expect=lambda answer, expected=expected: answer.status // 100 == expected,
            )
        )  # fmt: skip
    for load in loads:
        load.start()
    for load in loads:
        load.join()
        assert not load.lost
    sent = sum(load.sent for load in loads)
    assert sent == sum(int(count * SHARE[kind]) for count, _ in MIX.values())
    # The last counts follow the last answers.
    document = server.wait_stats(lambda document: stats.total(document, "requests") >= sent, "all counted")

    assert stats.total(document, "requests") == sent
    assert stats.total(document, "delta_requests") == sent
    assert stats.total(document, "exceptions") == loads[-1].sent
    wanted: dict[str, int] = {}
    for load, (_, class_) in zip(loads, MIX.values()):
        wanted[class_] = wanted.get(class_, 0) + load.good
    assert stats.responses(document) == wanted
    if kind != "http":  # the http router frames answers again
        assert stats.total(document, "tx") == sum(load.bytes for load in loads)
    assert stats.histogram_total(document["latency"]) == sent
    assert sum(stats.histogram_total(worker["latency"]) for worker in document["workers"]) == sent
    assert len([worker for worker in document["workers"] if worker["requests"]]) >= 2
    for worker in document["workers"]:
        assert sum(core["requests"] for core in worker["cores"]) == worker["requests"]
        assert sum(app["requests"] for app in worker["apps"]) == worker["requests"]
        assert sum(app["exceptions"] for app in worker["apps"]) == worker["exceptions"]
        assert sum(worker["responses"].values()) == worker["requests"]
        # Connections that stay may leave a worker with nothing to do.
        assert (worker["requests"] > 0) == (worker["avg_rt"] > 0) == (worker["running_time"] > 0)
        assert worker["busy_time"] == worker["running_time"]
        assert (worker["respawn_count"], worker["harakiri_count"]) == (1, 0)
        assert all(core["write_errors"] == core["read_errors"] == core["in_request"] == 0 for core in worker["cores"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_answer_is_counted_to_the_byte(serve, stats_at, tmp_path, kind):
    site = every_kind(serve, "--wsgi-file", "probe.py", "--stats", stats_at)[kind]
    (tmp_path / "file").write_bytes(bytes(5_000_000))
    sizes = [
        site.get(target).size
        for target in ("/large?bytes=9000000", f"/file?file={tmp_path}/file&length=5000000", f"/file?file={tmp_path}/file", "/write")
    ]
    document = site.server.wait_stats(lambda document: stats.total(document, "requests") == 4, "all counted")
    if kind == "http":
        assert abs(stats.total(document, "tx") - sum(sizes)) < 10_000
    else:
        assert stats.total(document, "tx") == sum(sizes)


@pytest.mark.parametrize("by", ["yield", "write"])
def test_a_client_that_leaves_is_a_write_error_and_no_fault_of_the_application(serve, stats_at, record, by):
    site = every_kind(serve, "--wsgi-file", "probe.py", "--stats", stats_at)["http-socket"]
    connection = site.open("GET", f"/endless?by={by}&record={record.path}")
    connection.read(100_000)
    connection.reset()
    record.wait()
    until(lambda: site.server.stats()["workers"][0]["cores"][0]["write_errors"] == 1, "a write error is counted")
    assert site.server.stats()["workers"][0]["exceptions"] == 0
    assert "Traceback" not in site.server.log()


def test_a_body_that_breaks_off_is_a_read_error(serve, stats_at):
    site = every_kind(serve, "--wsgi-file", "probe.py", "--stats", stats_at)["socket"]
    site.open("POST", "/digest", {"Content-Length": "1000"}, b"too little").close()
    until(lambda: site.server.stats()["workers"][0]["cores"][0]["read_errors"] == 1, "a read error is counted")


def test_the_last_exception_is_told(serve, stats_at):
    site = every_kind(serve, "--wsgi-file", "probe.py", "--stats", stats_at)["http-socket"]
    assert site.server.stats()["workers"][0].get("last_exception") is None
    site.get("/fail?token=told")
    last = until(lambda: site.server.stats()["workers"][0].get("last_exception"), "an exception is told")
    assert (last["type"], last["message"]) == ("ValueError", "failed told")
    assert "probe.py" in last["where"] and "fail" in last["where"]
    # The innermost frame first, and who called it.
    assert last["traceback"][0] == last["where"]
    assert "probe.py" in last["traceback"][1] and 2 <= len(last["traceback"]) <= 5
    assert last["request"] == "GET /fail?token=…"
    assert last["when"] > 1_600_000_000_000_000
