"""Reports of a worker's memory on demand: types that grew, lines that allocate, what could be saved."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest

from rig import http
from rig.addresses import tcp
from rig.control import Control
from rig.http import Connection, head
from rig.memory import ask, memory, row
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI has no control socket")


class Site:
    """A server of `growing.py` with a control socket."""

    def __init__(self, serve, directory, stats_at, *arguments, count=1) -> None:
        self.address, self.control = tcp(), directory / "control"
        self.server = serve(
            "--http-socket", self.address, "--module", "growing", "--control", self.control, "--stats", stats_at,
            "--processes", count, *arguments,
        )
        self.server.wait_workers(count)

    def get(self, target: str, times: int = 1) -> str:
        body = ""
        for _ in range(times):
            answer = http.get(self.address, target)
            assert answer.status == 200
            body = answer.text
        return body

    def refused(self, what: str, worker: int = 1) -> str:
        """Why a report is not made."""
        reply, _ = ask(self.control, **{"do": "memory", "worker": worker, "what": what})
        assert "failed" in reply, reply
        return reply["failed"]


@pytest.fixture
def site(serve, tmp_path, stats_at):
    return Site(serve, tmp_path, stats_at)


def test_the_type_that_grows_is_named_with_its_cost_before(site):
    first = memory(site.control, 1, "types")
    assert first["worker"] == 1 and first["pid"] == site.server.stats()["workers"][0]["pid"] and first["took"] > 0
    site.get("/leak", times=20)
    reply, said = ask(site.control, **{"do": "memory", "worker": 1, "what": "types"})
    assert any("stands still for about" in line for line in said), said
    grown = reply["done"]["memory"]
    assert row(grown, "growing.Order")["count_growth"] == 2000
    names = [row["name"] for row in grown["rows"]]
    assert "growing.Order" in names[:6], names
    assert "growth is since they were counted last" in grown["note"]


def test_the_line_that_allocates_is_named_and_tracing_goes_on_and_off_live(site):
    assert "trace-start" in site.refused("trace")
    assert "10 to 20 times" in memory(site.control, 1, "trace-start")["note"]
    assert "already" in site.refused("trace-start")
    site.get("/leak", times=10)
    first = memory(site.control, 1, "trace")
    assert any("growing.py:" in row["name"] for row in first["rows"][:3]), first
    site.get("/leak", times=10)
    line = row(memory(site.control, 1, "trace"), "growing.py:")
    assert line["bytes_growth"] > 10_000 and line["bytes"] > line["bytes_growth"]
    memory(site.control, 1, "trace-stop")
    assert "not traced" in site.refused("trace-stop")


def test_savings_are_told_from_the_pages_of_the_process(site):
    before = memory(site.control, 1, "savings")
    site.get("/leak", times=200)
    after = memory(site.control, 1, "savings")
    assert row(after, "gc.freeze")["count"] > 1000
    grown = row(after, "recycling")["bytes"] - row(before, "recycling")["bytes"]
    assert grown > 1_000_000, (before, after)
    assert row(after, "private pages")["bytes_growth"] == row(after, "recycling")["bytes"]
    assert row(after, "lazy-apps")["bytes"] == 0
    assert "smaps_rollup" in after["note"]


def test_with_lazy_apps_loading_before_the_fork_would_save(serve, tmp_path, stats_at):
    site = Site(serve, tmp_path, stats_at, "--lazy-apps")
    assert row(memory(site.control, 1, "savings"), "lazy-apps")["bytes"] > 100_000


def test_a_busy_worker_says_so_and_is_asked_again(site, tmp_path):
    go = tmp_path / "go"
    holder = Connection(site.address)
    holder.send(head("GET", f"/hold?{go}"))
    site.server.wait_stats(lambda document: document["workers"][0]["status"] == "busy", "a request in progress")
    assert "all are busy with requests" in site.refused("types")
    go.touch()
    assert holder.response().status == 200
    assert memory(site.control, 1, "types")["rows"]


def test_any_free_thread_of_several_answers(serve, tmp_path, stats_at):
    site = Site(serve, tmp_path, stats_at, "--threads", 3)
    holder = Connection(site.address)
    holder.send(head("GET", "/sleep?10"))
    site.server.wait_stats(lambda document: document["workers"][0]["status"] == "busy", "a request in progress")
    assert memory(site.control, 1, "types")["rows"]


def test_a_worker_that_dies_meanwhile_is_told(site):
    holder = Connection(site.address)
    holder.send(head("GET", "/sleep?30"))
    document = site.server.wait_stats(lambda document: document["workers"][0]["status"] == "busy", "a request in progress")
    with Control(site.control) as asking:
        asking.send(json.dumps({"do": "memory", "worker": 1, "what": "types"}).encode() + b"\n")
        # What is asked later is answered: the server knows of it. The next worker would answer otherwise.
        assert "from 1 to 1" in site.refused("types", worker=2)
        os.kill(document["workers"][0]["pid"], signal.SIGKILL)
        answer = next(reply for reply in asking.replies() if "progress" not in reply)
    assert "has ended" in answer.get("failed", ""), answer


def test_a_worker_that_there_is_not_is_refused(site):
    assert "from 1 to 1" in site.refused("types", worker=2)
    assert "from 1 to 1" in site.refused("types", worker=0)


def test_requests_are_served_while_reports_are_made(serve, tmp_path, stats_at):
    site = Site(serve, tmp_path, stats_at, count=2)
    for worker in (1, 2):
        assert memory(site.control, worker, "types")["worker"] == worker
        site.get("/leak")
    until(lambda: site.server.stats()["workers"][0]["status"] == "idle", "idle again")


def run_rtop(rtop, *arguments) -> subprocess.CompletedProcess[str]:
    return subprocess.run([rtop, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)


def test_rtop_prints_a_report_as_text_and_as_json(site, rtop, stats_at):
    text = run_rtop(rtop, stats_at, "--memory", "types")
    assert text.returncode == 0 and "stands still for about" in text.stderr, text
    assert "worker 1 (pid" in text.stdout and "COUNT" in text.stdout
    site.get("/leak", times=5)
    report = json.loads(run_rtop(rtop, stats_at, "--memory", "types", "--worker", 1, "--json").stdout)
    assert row(report, "growing.Order")["count_growth"] == 500
    failed = run_rtop(rtop, stats_at, "--memory", "trace")
    assert failed.returncode == 2 and "trace-start" in failed.stderr
    assert "types, trace-start" in run_rtop(rtop, stats_at, "--memory", "tpyes").stderr


def test_rtop_shows_a_worker_s_memory_and_asks_before_it_costs_something(site, rtop, terminal, stats_at):
    screen = terminal([rtop, stats_at])
    screen.wait("WID")
    screen.press("m")
    screen.wait("memory of worker 1", "recycling this worker")
    screen.press("o")
    screen.wait("10 to 20 times slower", "enter does it")
    screen.press("Escape")
    # An escape that is read together with a key is another key.
    screen.wait_for(lambda text: "recycling this worker" in text and "enter does it" not in text, "the report again")
    assert "trace-start" in site.refused("trace"), "it was not confirmed"
    screen.press("o")
    screen.wait("enter does it")
    screen.press("Enter")
    screen.wait("every allocation is recorded")
    site.get("/leak", times=10)
    screen.press("l")
    screen.wait("enter does it")
    screen.press("Enter")
    screen.wait("growing.py:")
    screen.press("x")
    screen.wait("not traced any more")
    screen.press("q")
    screen.press("q")
    screen.wait_left()
