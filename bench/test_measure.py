"""The benchmark's arithmetic, against what is known exactly: `python -m pytest bench`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import xml.etree.ElementTree

import pytest
from measure import charts, instruction_counts, load, processes, report, special
from measure.goals import GOALS, SOCKET, peers
from measure.results import Middle, Results
from measure.servers import SERVERS, Failed, Setting
from measure.works import WORKS

# Burns processor time in two generations: a child that is waited for, and the process itself; then says how much.
BURN = """
import os, subprocess, sys, time
def burn(seconds):
    while time.process_time() < seconds: pass
sys.stdin.readline()
if os.fork() == 0:
    burn(0.3)
    os._exit(0)
os.wait()
mine = time.process_time()
burn(mine + 0.2)
used = os.times()
print(time.process_time() + used.children_user + used.children_system, flush=True)
sys.stdin.readline()
"""


def test_processor_time_counts_children_that_are_gone():
    program = subprocess.Popen(
        [sys.executable, "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        program.stdin.write("go\n")
        program.stdin.flush()
        told = float(program.stdout.readline())
        seen = processes.spent(program.pid)
        assert 0.5 <= told
        # A child's time is told in the kernel's ticks.
        assert seen == pytest.approx(told, abs=0.05)
    finally:
        program.communicate("done\n")


def test_processor_time_counts_grandchildren_of_the_session_whose_parent_left():
    script = "(sh -c 'while :; do :; done' & echo $!; ) ; read line"
    program = subprocess.Popen(
        ["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    spinning = int(program.stdout.readline())
    try:
        assert spinning in {stat.pid for stat in processes.family(program.pid)}
        deadline = time.monotonic() + 30
        while processes.spent(program.pid) < 0.1:
            assert time.monotonic() < deadline
    finally:
        os.kill(spinning, 9)
        program.communicate("done\n")


def test_a_process_name_may_hold_spaces_and_parentheses():
    fields = "S 1 7 7 0 -1 4194304 100 0 0 0 150 50 20 5 20 0 4 0 100 1000000 500"
    stat = processes.parse_stat(f"42 (rwsgi (w 1) x) {fields}")
    assert (stat.pid, stat.state, stat.parent, stat.session) == (42, "S", 1, 7)
    tick = os.sysconf("SC_CLK_TCK")
    assert (stat.own, stat.reaped) == (200 / tick, 25 / tick)


def test_memory_of_a_process_is_that_of_its_rollup():
    program = subprocess.Popen(
        [sys.executable, "-c", "x = bytearray(b'1') * 50_000_000; print(); input()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        program.stdout.readline()
        assert 50_000_000 < processes.memory(program.pid) < 90_000_000
    finally:
        program.communicate("\n")


def test_what_wrk_tells_is_read_and_long_answers_are_counted_by_their_bytes():
    output = 'Running 1s test\nresult {"requests": 9, "bytes": 10500000, "connect": 1, "read": 2, "write": 3, "status": 4, "timeout": 5}\n'
    result = load.parse(output)
    assert load.errors_of(result) == 15
    works = {work.name: work for work in WORKS}
    assert load.requests_of(works["1MB"], result) == 10.5
    assert load.requests_of(works["hello"], result) == 9
    with pytest.raises(Failed):
        load.parse("unable to connect\n")


def test_what_ab_tells_is_read_and_requests_that_never_completed_failed():
    output = (
        "Complete requests:      9990\nFailed requests:        3\n   (Connect: 0)\nNon-2xx responses:      2\n"
        "Requests per second:    1234.56 [#/sec] (mean)\nPercentage\n  50%     80\n  99%    900\n 100%   1500 (longest request)\n"
    )
    told = {"failed": 15, "requests/s": 1235, "p50, ms": 80, "p99, ms": 900, "longest, ms": 1500}
    assert special.parse_ab(output) == told


def test_medians_and_spreads():
    results = Results()
    for cpu in (10.0, 30.0, 12.0):
        results.add("hello", SOCKET, {"cpu": cpu})
    middle = results.get("hello", SOCKET, "cpu")
    assert middle == Middle(12.0, 10.0, 30.0)
    assert middle.spread == 1.5
    assert results.get("hello", "bjoern", "cpu") is None


def test_what_is_measured_anew_is_forgotten_and_nothing_else():
    results = Results()
    for work in ("hello", "1MB"):
        for server in (SOCKET, "bjoern"):
            results.add(work, server, {"cpu": 1.0})
    results.fail("hello", SOCKET, "it fell")
    results.forget(["hello"], [SOCKET])
    assert results.get("hello", SOCKET, "cpu") is None
    assert results.failures == {"hello": {}}
    assert results.get("hello", "bjoern", "cpu") and results.get("1MB", SOCKET, "cpu")


def test_of_a_row_that_is_measured_once_more_the_steadier_rounds_are_kept():
    def three(*rounds: float) -> Results:
        results = Results()
        for cpu in rounds:
            results.add("hello", SOCKET, {"cpu": cpu})
        return results

    results = three(10.0, 30.0, 12.0)
    assert results.unsteady("hello", SOCKET) and not results.unsteady("hello", "bjoern")
    results.keep_steadier("hello", three(10.0, 40.0, 12.0))
    assert results.get("hello", SOCKET, "cpu") == Middle(12.0, 10.0, 30.0)
    # Broken off: fewer rounds always lie closer together.
    results.keep_steadier("hello", three(11.0))
    assert results.get("hello", SOCKET, "cpu") == Middle(12.0, 10.0, 30.0)
    results.keep_steadier("hello", three(10.0, 11.0, 12.0))
    assert results.get("hello", SOCKET, "cpu") == Middle(11.0, 10.0, 12.0)
    assert not results.unsteady("hello", SOCKET)


def test_who_fails_or_starves_a_client_competes_with_nobody():
    results = Results()
    for server, errors, starved in (("bjoern", 0, 0), ("granian", 1, 0), ("uwsgi --http11-socket", 0, 1), ("floor", 0, 0)):
        results.add("1MB", server, {"cpu": 1.0, "errors": errors, "starved": starved})
    assert peers(results, "1MB", "cpu") == {"bjoern": 1.0}


def test_a_run_becomes_a_page_with_a_row_and_a_bar_for_each_server(tmp_path):
    results = Results(header={"machine": "small"})
    figures = {figure: 1.0 for figure in report.FIGURES}
    for server in ("bjoern", SOCKET, "floor"):
        results.add("hello", server, {**figures, "cpu": 2.0 if server == SOCKET else 4.0})
    results.fail("hello", "granian", "it fell")
    results.save(tmp_path / "results.json")
    report.write(Results.load(tmp_path / "results.json"), tmp_path / "performance.md", tmp_path / "performance")
    page = (tmp_path / "performance.md").read_text()
    lines = page.split("## Hello")[1].split("\n## ")[0].splitlines()
    rows = [line.split(" | ")[0] for line in lines if line.startswith("| ") and "---" not in line]
    assert rows == ["| server", f"| {SOCKET}", "| bjoern", "| floor"]
    assert "granian: no figures, it fell" in page
    assert "2.00 µs, 0.50 of bjoern's | yes" in page
    picture = xml.etree.ElementTree.parse(tmp_path / "performance" / "hello.svg").getroot()
    assert len([e for e in picture.iter() if e.tag.endswith("rect")]) == 4  # the ground, and three bars


def test_bars_are_in_proportion():
    picture = xml.etree.ElementTree.fromstring(charts.bars("t", "u", {"a": Middle(1, 1, 1), "b": Middle(4, 4, 4)}))
    widths = [float(e.get("width")) for e in picture.iter() if e.tag.endswith("rect")][1:]
    assert widths[1] == pytest.approx(4 * widths[0], rel=0.01)


def test_works_and_goals_name_each_other_rightly():
    names = [work.name for work in WORKS]
    assert len(names) == len(set(names))
    empty = Results()
    assert all(goal.judge(empty) is None for goal in GOALS)
    single = next(server for server in SERVERS if server.name == "bjoern")
    assert not single.can(Setting(threads=2))
    assert single.can(Setting(processes=2))


def test_a_request_that_costs_more_instructions_than_allowed_is_named():
    before = {"hello": {"worker": 10_000, "http router": 3_000}, "gone": {"worker": 1}}
    now = {"hello": {"worker": 10_201, "http router": 3_050}, "new": {"worker": 7}}
    assert instruction_counts.grown(now, before, within=2) == ["hello, worker: +2.01 %", "gone, worker: not counted"]
    assert instruction_counts.grown(before, before, within=0) == []
    assert instruction_counts.row("hello", "worker", 9_000, before) == "| hello | worker | 9,000 | 10,000 | -10.00 % |"
    assert instruction_counts.row("new", "worker", 7, before) == "| new | worker | 7 |  |  |"


def test_the_server_s_own_instructions_are_those_that_the_application_does_not_take():
    # The library (1) calls the application by Python (2), which calls the library; and its own helper. The last call is
    # one that began before.
    file = """
ob=(1) /somewhere/_rwsgi.so
fn=(1) serve
10 100
cob=(2) /somewhere/libpython.so
cfn=(2) PyObject_Vectorcall'2
calls=50 3
10 7000
cfn=(3) parse
calls=50 4
10 900
cob=(2)
cfn=(4) PyIter_Next
calls=100 5
11 60
ob=(2)
fn=(2)
3 20
cfn=(4)
calls=50 5
3 5000
ob=(1)
fn=(5) run
cob=(2)
cfn=(2)
calls=0 3
1 30000
"""
    assert instruction_counts.in_application(file.splitlines(), "_rwsgi") == 7060
    assert instruction_counts.in_application(file.splitlines(), "_bjoern") == 0
    worker, other = instruction_counts.Cost(1_009_000, 1_000_000), instruction_counts.Cost(1_010_000, 1_000_000)
    assert instruction_counts.beside("bjoern", {"page": (worker, other)}).splitlines()[1:] == [
        "| request | worker | bjoern | ratio | worker's own | bjoern's own | ratio |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| page | 1,009,000 | 1,010,000 | 0.999 | 9,000 | 10,000 | 0.900 |",
    ]
