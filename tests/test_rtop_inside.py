"""rtop's stacks and profiles of a real server: as text, as files, and in a terminal."""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager
from xml.etree import ElementTree

import pytest

from rig import chromium, http
from rig.addresses import tcp
from rig.chromium import Chromium
from rig.server import APPS
from rig.waiting import DEADLINE, until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI does not tell what its threads execute")


class Site:
    """A server with the application `stuck.py`, and rtop."""

    def __init__(self, serve, rtop, tmp_path) -> None:
        self.address, self.stats, self.go, self.rtop = tcp(), tcp(), tmp_path / "go", rtop
        serve(
            "--http-socket", self.address, "--wsgi-file", "stuck.py", "--threads", 2,
            "--stats", self.stats, "--control", tmp_path / "control.sock",
        )

    @contextmanager
    def stuck(self, kind: str):
        """A request that is stuck in this way, and that the stats show."""
        connection = http.Connection(self.address)
        connection.send(http.head("GET", f"/{kind}?go={self.go}", {"Connection": "close"}))
        try:
            until(lambda: f"GET /{kind}?" in self.run("--stacks").stdout, f"the stack of /{kind}")
            yield
            self.go.touch()
            assert connection.response().status == 200
        finally:
            self.go.touch()
            connection.close()

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [self.rtop, self.stats, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)


    def sampled(self, *arguments: object, wanted: int = 30) -> subprocess.CompletedProcess[str]:
        """A profile. A server that gets little of the processors takes few samples in a second, so it is for as long as
        it takes for so many at the speed that it has now."""
        told = self.run("--profile", "1s", "--json")
        assert told.returncode == 0, told.stderr
        seconds = wanted / json.loads(told.stdout)["samples"]
        run = self.run("--profile", f"{min(max(seconds, 1), 15):.1f}s", *arguments)
        assert run.returncode == 0, run.stderr
        return run


@pytest.fixture
def site(serve, rtop, tmp_path):
    return Site(serve, rtop, tmp_path)


def test_stacks_are_printed_innermost_first(site):
    with site.stuck("deep"):
        seen: list[str] = []

        def asleep() -> bool:
            seen[:] = site.run("--stacks", "--worker", 1).stdout.splitlines()
            places = [number for number, line in enumerate(seen) if f"sleep ({APPS / 'stuck.py'}:" in line]
            return bool(places) and "GET /deep?go=" in seen[places[0] - 1] and "deep (" in seen[places[0] + 1]

        # It is on its way there, or looks whether it is to go on, at times.
        until(asleep, "it sleeps below its 150 frames", context=lambda: "\n".join(seen))
        [told] = site.run("--stacks", "--json").stdout.splitlines()
        assert {thread["worker"] for thread in json.loads(told)["threads"]} == {1}


def test_a_profile_is_a_table_json_a_picture_and_files_for_other_programs(site, tmp_path):
    with site.stuck("spin"):
        table = site.sampled("--profile-by", "state").stdout
        assert "% of busy threads are in" in table and "heavy" in table, table
        told = json.loads(site.sampled("--json", wanted=100).stdout)
        own = {row["function"].split(".")[-1]: row["own"] for row in told["functions"]}
        assert own["heavy"] > own["light"], "the work is 3 to 1"
        assert told["states"]["running"] > 0.5 and told["hottest"]["file"] == str(APPS / "stuck.py")
        for name in ["flame.svg", "flame.speedscope.json", "flame.collapsed"]:
            site.sampled("--output", tmp_path / name)
        picture = ElementTree.parse(tmp_path / "flame.svg")
        titles = [title.text or "" for title in picture.iter("{http://www.w3.org/2000/svg}title")]
        assert any("heavy (stuck.py:" in title for title in titles), titles
        speedscope = json.loads((tmp_path / "flame.speedscope.json").read_text())
        for profile in speedscope["profiles"]:
            assert len(profile["samples"]) == len(profile["weights"])
            assert profile["endValue"] == sum(profile["weights"])
        assert ";heavy (" in (tmp_path / "flame.collapsed").read_text().replace("Stuck.", "")


def test_an_idle_server_has_no_profile(site):
    run = site.run("--profile", "0.2")
    assert run.returncode == 2 and "no request ran" in run.stderr


def test_keys_show_the_stacks_of_a_worker_and_a_flame_graph(site, terminal):
    with site.stuck("sleep"):
        monitor = terminal([site.rtop, site.stats, "--frequency", "0.2"], columns=80, rows=24)
        monitor.wait("busy")
        monitor.press("j", "b")
        monitor.wait("stacks of worker 1", "GET /sleep?go=", "stuck.py:")
        monitor.press("Escape")
        # An escape that is read together with a key is another key.
        monitor.wait_for(lambda text: "WID" in text and "stacks of worker 1" not in text, "the table again")
        monitor.press("P")
        monitor.wait("for how many seconds?")
        monitor.press("BSpace", "BSpace", "1", "Enter")
        monitor.wait("samples in", "sleep (stuck.py:", "waiting")
        monitor.press("q")
        monitor.wait("% of busy threads are in", "P shows it")
        monitor.press("q")
        monitor.wait_left()


BOXES = """Array.from(document.querySelectorAll('.f')).filter(box => box.style.display !== 'none').map(box => ({
    name: box.querySelector('title').textContent.split(' ')[0].split('.').pop(), found: box.classList.contains('found'),
    width: +box.querySelector('rect').getAttribute('width')}))"""
CLICK = """Array.from(document.querySelectorAll('.f')).find(box => /(^|[.])%s [(]/.test(box.textContent))
    .dispatchEvent(new MouseEvent('click', {shiftKey: %s}))"""


@pytest.mark.skipif(chromium.found() is None, reason="Chromium is not installed: apt-get install chromium")
def test_a_browser_zooms_folds_and_searches_the_picture(site, tmp_path):
    picture = tmp_path / "flame.svg"
    with site.stuck("spin"):
        site.sampled("--output", picture, wanted=100)
    browser = Chromium(tmp_path)
    try:
        browser.size(1280, 900)
        browser.open(picture)

        def boxes() -> dict[str, dict]:
            return {box["name"]: box for box in browser.ask(BOXES)}

        whole = boxes()
        assert {"all", "application", "spin", "heavy"} <= set(whole)
        browser.ask(CLICK % ("heavy", "false"))
        zoomed = boxes()
        assert zoomed["heavy"]["width"] > whole["heavy"]["width"] and "light" not in zoomed
        browser.ask("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape'}))")
        assert boxes() == whole
        browser.ask(CLICK % ("spin", "true"))
        assert "heavy" not in boxes() and "spin" in boxes()
        browser.ask("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape'}))")
        browser.ask("window.prompt = () => 'heavy'; document.dispatchEvent(new KeyboardEvent('keydown', {key: '/'}))")
        assert [name for name, box in boxes().items() if box["found"]] == ["heavy"]
        told = browser.ask("document.getElementById('about').textContent")
        assert 0 < float(told.split()[0]) < 100 and "heavy" in told
        wrong = [event for event in browser.events if event.get("method") in ("Runtime.exceptionThrown", "Network.requestFailed")]
        assert not wrong
    finally:
        browser.close()
