"""Tools that run inside the application's processes: metrics of all workers, coverage, a debugger, gevent's replacements, a pool
of connections. docs/agents.md says how each is set up."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from rig import http
from rig.addresses import free_port, listening
from rig.agents import AGENT_SITES, Launched, environment
from rig.debugger import Debugger
from rig.postgres import Postgres
from rig.server import Servers
from rig.waiting import until

# The first of each environment waits for downloads.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def site(program, address, stats_at, tmp_path):
    """Starts the server of an environment: `site("name", [package, ...], *options)`."""
    fleets = []

    def start(name, packages, *options, env=None, workers=2):
        place = environment(name, packages, program)
        home = ["--home", place] if program.is_uwsgi else []
        fleets.append(Servers(Launched(program.path if program.is_uwsgi else str(place / "bin/rwsgi")), tmp_path))
        server = fleets[-1](
            *("--http-socket", address, "--stats", stats_at, "--master", "--processes", workers, *home, *options),
            cwd=AGENT_SITES, env=env,
        )
        server.wait_workers(workers)
        server.place = place
        return server

    yield start
    for fleet in fleets:
        fleet.stop_all()


def at_once(address: str, path: str, number: int) -> list[str]:
    """Answers to requests that are under way at the same time."""
    with ThreadPoolExecutor(number) as clients:
        return [answer.text for answer in clients.map(lambda _: http.get(address, path), range(number))]


def pids_asked(address: str, enough, path: str = "/") -> list[str]:
    """Sends requests until `enough` is content with the answers; returns them."""
    answers = []

    def ask() -> bool:
        answer = http.get(address, path)
        assert answer.status == 200, answer
        answers.append(answer.text)
        return enough(set(answers))

    until(ask, "answers of all workers")
    return answers


def test_prometheus_client_counts_the_requests_of_workers_that_have_ended_and_forgets_their_gauges(site, address, tmp_path):
    directory = tmp_path / "metrics"
    directory.mkdir()
    server = site(
        *("prometheus", ["prometheus-client>=0.20,<1"], "--module", "with_prometheus", "--max-requests", 20),
        env={"PROMETHEUS_MULTIPROC_DIR": str(directory)},
    )
    answers = pids_asked(address, lambda pids: len(pids) >= 4)
    server.send(signal.SIGHUP)
    answers += pids_asked(address, lambda pids: len(pids - set(answers)) >= 2)

    def numbers() -> dict[str, float]:
        text = http.get(address, "/metrics").text
        return {name: float(value) for name, value in re.findall(r"^(\w+) ([\d.]+)$", text, re.M)}

    until(lambda: numbers() == {"work_total": len(answers), "alive": 2}, "the workers' numbers", context=lambda: f"{numbers()}")


@pytest.mark.skipif(sys.version_info < (3, 10), reason="coverage of before 7.13 does not start by itself")
@pytest.mark.parametrize(
    "workers, threads, path, answers", [
        (2, 1, "/", {"worker 1", "worker 2"}), (1, 2, "/together", {"one thread", "another thread"}),
    ], ids=["workers", "threads"],
)
def test_coverage_has_the_lines_of_every_worker_and_every_thread(site, address, tmp_path, workers, threads, path, answers):
    settings = tmp_path / "coveragerc"
    settings.write_text(f"[run]\nparallel = true\ndata_file = {tmp_path}/data\ninclude = {AGENT_SITES}/covered.py\n")
    server = site(
        *("coverage", ["coverage>=7.13,<8"], "--module", "covered", "--threads", threads),
        env={"COVERAGE_PROCESS_START": str(settings)}, workers=workers,
    )
    seen: set[str] = set()
    until(lambda: seen.update(at_once(address, path, 2)) or seen == answers, "answers of all of them")
    server.stop()
    for command in (["combine", "--quiet"], ["json", "--quiet", "-o", tmp_path / "report.json"]):
        ran = subprocess.run(
            [server.place / "bin/coverage", command[0], f"--rcfile={settings}", *command[1:]],
            cwd=tmp_path, capture_output=True, timeout=60,
        )
        assert ran.returncode == 0, f"{ran.stdout}{ran.stderr}{server.log()}"
    (report,) = json.loads((tmp_path / "report.json").read_text())["files"].values()
    source = (AGENT_SITES / "covered.py").read_text().splitlines()
    assert answers <= {source[line - 1].split('"')[1] for line in report["executed_lines"] if "by = " in source[line - 1]}


@pytest.mark.parametrize("threads", [1, 2])
def test_debugpy_stops_at_a_line_in_every_thread(site, address, threads):
    port = free_port()
    server = site(
        *("debugpy", ["debugpy>=1.8,<2"], "--module", "with_debugpy", "--threads", threads),
        env={"DEBUG_PORT": str(port)}, workers=1,
    )
    until(lambda: listening(f"127.0.0.1:{port}"), "debugpy listens", context=server.log)
    source = AGENT_SITES / "with_debugpy.py"
    line = next(number for number, text in enumerate(source.read_text().splitlines(), 1) if "the line to stop at" in text)
    debugger = Debugger(f"127.0.0.1:{port}")
    try:
        debugger.break_at(str(source), line)
        with ThreadPoolExecutor(threads) as clients:
            answers = [clients.submit(http.get, address, "/") for _ in range(threads)]
            stopped = set()
            for _ in range(threads):
                thread, value = debugger.evaluated("answer")
                assert value == "'from a thread that goes on'"
                stopped.add(thread)
                debugger.ask("continue", threadId=thread)
            assert len(stopped) == threads
            assert [answer.result(30).text for answer in answers] == ["from a thread that goes on"] * threads
    finally:
        debugger.close()


def test_what_gevent_replaces_blocks_its_thread_alone(site, address):
    site("gevent", ["gevent>=24,<27"], "--module", "with_gevent", "--gevent", 4, "--gevent-monkey-patch", workers=1)
    assert at_once(address, "/", 4) == ["1225 1"] * 4
    assert at_once(address, "/together", 4) == ["1"] * 4


def test_a_pool_of_psycopg_belongs_to_its_worker(site, address):
    postgres = Postgres()
    try:
        server = site(
            *("psycopg", ["psycopg[binary,pool]>=3.1,<4"], "--module", "with_psycopg", "--threads", 2, "--max-requests", 40),
            env={"DATABASE": postgres.dsn}, workers=1,
        )
        # Two threads hold a connection of the pool each.
        assert len(set(at_once(address, "/together", 2))) == 2
        answers = pids_asked(address, lambda answers: len({answer.split()[0] for answer in answers}) >= 2)
        server.send(signal.SIGHUP)
        seen = {answer.split()[0] for answer in answers}
        answers += pids_asked(address, lambda answers: {answer.split()[0] for answer in answers} - seen)
        backends = {}
        for worker, backend in (answer.split() for answer in answers):
            assert backends.setdefault(backend, worker) == worker, "a connection that two workers have"
        server.stop()
        assert "unexpected EOF" not in postgres.log()
    finally:
        postgres.stop()
