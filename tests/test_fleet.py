"""rtop over a fleet of real servers: one is slow, one serves another generation, one is killed; on a real terminal, and judged."""

from __future__ import annotations

import csv
import io
import json
import re
import signal
import subprocess
import threading
import time
from xml.etree import ElementTree

import pytest

from rig import http
from rig.addresses import tcp
from rig.server import Servers
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="generations and histograms are rwsgi's")

APP = """
import os, time

def application(environ, start_response):
    time.sleep(float(os.environ["DELAY"]))
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""
SERVERS = 5
SLOW = 2
# A server that has not answered when it is asked again is not up, and on a busy machine an answer takes its time.
UNHURRIED = "2"


class Fleet:
    """Servers web0 to web4, of which web2 is slow, with a client for each, and the file that lists them."""

    def __init__(self, servers: Servers, directory) -> None:
        (directory / "app.py").write_text(APP)
        self.addresses = [tcp() for _ in range(SERVERS)]
        self.stats = [tcp() for _ in range(SERVERS)]
        self.servers = [
            servers.start(
                *("--http-socket", address, "--stats", stats, "--master", "--threads", 2, "--wsgi-file", "app.py"),
                cwd=directory,
                env={"DELAY": "0.2" if number == SLOW else "0.002"},
            )
            for number, (address, stats) in enumerate(zip(self.addresses, self.stats))
        ]
        for server in self.servers:
            server.wait_ready()
        self.list = directory / "targets.txt"
        self.list.write_text("".join(f"{stats} web{number} role=web\n" for number, stats in enumerate(self.stats)))
        self._stop = threading.Event()
        # The slow one has two, so that there are soon as many requests as a judgement wants.
        asked = [*self.addresses, self.addresses[SLOW]]
        self._clients = [threading.Thread(target=self._ask, args=(address,)) for address in asked]
        for client in self._clients:
            client.start()

    def _ask(self, address: str) -> None:
        while not self._stop.is_set():
            try:
                http.get(address, "/")
            except OSError:
                # It is killed in a test.
                time.sleep(0.05)
            self._stop.wait(0.02)

    def stop(self) -> None:
        self._stop.set()
        for client in self._clients:
            client.join()


@pytest.fixture
def fleet(serve, tmp_path):
    made = Fleet(serve, tmp_path)
    yield made
    made.stop()


def test_the_screen_says_who_is_slow_and_dead_and_of_another_generation(fleet, terminal, rtop):
    screen = terminal([rtop, f"@{fleet.list}", "--frequency", "0.2"], columns=150, rows=30)
    screen.wait("5 servers  5 up")
    slow = re.compile(r"web2 is \S+ times slower than its peers \(.*^ SERVER ", re.MULTILINE | re.DOTALL)
    screen.wait_for(slow.search, "it is at the top")
    screen.wait_for(lambda text: table(text).split()[:1] == ["web2"], "the highest p99 in the first row")
    # A reload of one of them.
    fleet.servers[4].send(signal.SIGHUP)
    screen.wait("web4 serves generation 2, its peers 1")
    # The end of another.
    fleet.servers[0].destroy()
    news = ["4 up  1 dead", "web0 is dead: ", "web2 is ", "web4 serves generation 2"]
    screen.wait(*news)
    screen.wait_for(
        lambda text: all(text.find(first) < text.find(then) for first, then in zip(["", *news], news)), "the most severe first"
    )
    # What is looked for.
    screen.press("/", "d", "e", "a", "d", "Enter")
    screen.wait_for(lambda text: "web0" in table(text) and "web1" not in table(text), "the filter")
    screen.press("Escape")
    # An escape that is read together with a key is another key.
    screen.wait_for(lambda text: "web1" in table(text), "no filter")
    # A line for each over time.
    screen.press("3")
    screen.wait(" a cell, the newest at the right")

    def dark(text: str) -> dict[str, int]:
        return {line.split()[0]: line.count("█") for line in table(text).splitlines() if line.startswith(" web")}

    screen.wait_for(lambda text: dark(text).get("web2", 0) > max(dark(text).get("web1", 0), 3), "web2 is darker than web1")
    screen.press("3", "3", "3", "3")
    screen.wait_for(lambda text: "P99" in text, "the table again")
    # Close to one, and back.
    screen.press("/", "w", "e", "b", "2", "Enter")
    screen.wait_for(lambda text: "web2" in table(text) and "web1" not in table(text), "the filter")
    screen.press("Home", "Enter")
    screen.wait(" WID ", "web2 (127.0.0.1:", "masterpid")
    screen.press("Escape")
    screen.wait(" SERVER ", "4 up  1 dead")
    screen.press("q")
    screen.wait_left()


def table(screen: str) -> str:
    """What stands below the titles."""
    return screen[screen.index(" SERVER") :].split("\n", 1)[1] if " SERVER" in screen else ""


def test_the_heat_map_needs_no_colours(fleet, terminal, rtop):
    screen = terminal(
        [rtop, f"@{fleet.list}", "--frequency", "0.2"], columns=120, env={"NO_COLOR": "1", "LC_ALL": "C", "LANG": "C"}
    )
    screen.wait("5 servers  5 up")
    screen.press("3")
    screen.wait_for(lambda text: any("web2" in line and "#" in line for line in text.splitlines()), "shades in ASCII")
    colours = screen.colours()
    assert not any(f"\x1b[{code}m" in colours for code in range(30, 38)), colours
    screen.press("q")
    screen.wait_left()


def run(rtop, *arguments, expect: int):
    done = subprocess.run([rtop, *map(str, arguments)], capture_output=True, text=True, timeout=60)
    assert done.returncode == expect, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def test_assertions_name_the_worst_server(fleet, rtop, tmp_path):
    junit = tmp_path / "fleet.xml"
    asserted = [
        "server.p50.max < 150ms",
        "server.p50.median < 150ms",
        "server.p99.any < 10s",
        "server.up.count == 5",
        "server.error_rate.all == 0",
        "server.rps.sum > 5",
    ]
    options = [part for text in asserted for part in ("--assert", text)]
    at = [f"@{fleet.list}", "--frequency", UNHURRIED, "--for", "4s"]
    done = run(rtop, *at, *options, "--junit", junit, expect=1)
    failed = [line for line in done.stdout.splitlines() if "FAIL" in line]
    assert len(failed) == 1 and re.search(r"server\.p50\.max.*web2: \d", failed[0]), done.stdout
    suite = ElementTree.parse(junit).getroot().find("testsuite")
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("6", "1", "0")
    assert "web2" in suite.find("testcase/failure").get("message")
    # As lines of JSON, the verdict is the last.
    done = run(rtop, *at, "--json", "--assert", "server.up.count == 5", expect=0)
    *frames, verdict = [json.loads(line) for line in done.stdout.splitlines()]
    assert verdict["exit"] == 0 and frames[0]["fleet"]["up"] == 5
    # A dead server is no pass.
    fleet.servers[1].destroy()
    done = run(rtop, *at, "--assert", "server.p50.max < 30s", expect=2)
    assert "web1 was dead" in done.stdout, done.stdout
    done = run(rtop, *at, "--assert", "server.up.count == 5", expect=1)
    assert "web1: not up" in done.stdout, done.stdout


def test_without_a_terminal_it_prints_tables_json_and_csv(fleet, rtop):
    at = f"@{fleet.list}"
    done = run(rtop, at, "--frequency", UNHURRIED, "-n", 1, expect=0)
    assert done.stdout.startswith("5 servers  5 up  ") and "\nSERVER " in done.stdout, done.stdout
    assert all(f"web{number}" in done.stdout for number in range(SERVERS))
    outliers: list[dict] = []
    with subprocess.Popen([rtop, at, "--frequency", "0.2", "--json"], stdout=subprocess.PIPE, text=True) as live:
        try:
            def slow_one() -> bool:
                frame = json.loads(live.stdout.readline())
                assert len(frame["servers"]) == SERVERS and frame["sources"] == []
                outliers[:] = [outlier for outlier in frame["outliers"] if outlier["rule"] == "slow"]
                return [outlier["server"] for outlier in outliers] == ["web2"]

            until(slow_one, "the slow server is found")
        finally:
            live.terminate()
    (slow,) = outliers
    assert " times slower than its peers" in slow["sentence"] and len(slow["evidence"]) == 2
    done = run(rtop, at, "--frequency", UNHURRIED, "-n", 2, "--csv", expect=0)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert len(rows) == 2 * SERVERS and {row["server"] for row in rows} == {f"web{n}" for n in range(SERVERS)}
    assert all(row["state"] == "up" for row in rows)


def test_what_is_asserted_of_the_wrong_thing_says_what_to_write(serve, rtop, address, stats_at, tmp_path):
    serve("--http-socket", address, "--wsgi-file", "probe.py", "--master", "--stats", stats_at)
    # A fleet of one.
    run(rtop, stats_at, "--for", "1s", "--assert", "server.up.count == 1", "--assert", "server.queue.max.max < 1k", expect=0)
    (tmp_path / "list.txt").write_text(f"{stats_at}\n")
    at = f"@{tmp_path / 'list.txt'}"
    done = run(rtop, at, "--for", "1s", "--assert", "p99 < 80ms", expect=2)
    assert "over a fleet write 'server.p99.max < 80ms'" in done.stderr, done.stderr
    done = run(rtop, at, "--for", "1s", "--assert", "server.p99 < 80ms", expect=2)
    assert "Write server.p99.max" in done.stderr, done.stderr
    done = run(rtop, at, "--for", "1s", "--record", tmp_path / "x.rtop", expect=2)
    assert "--record is of servers that are named one by one" in done.stderr, done.stderr


def test_a_fleet_that_nobody_answers_for_is_an_error(rtop, tmp_path):
    (tmp_path / "list.txt").write_text(f"{tcp()}\n{tcp()}\n")
    at = f"@{tmp_path / 'list.txt'}"
    done = run(rtop, at, "--frequency", "0.2", "-n", 1, expect=2)
    assert "2 dead" in done.stdout, done.stdout
    done = run(rtop, at, "--frequency", "0.2", "--for", "1s", "--assert", "server.p99.max < 1s", expect=2)
    assert "not measured" in done.stdout, done.stdout
