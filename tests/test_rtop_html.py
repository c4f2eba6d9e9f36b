"""The page of `rtop --html`: of a real server under load, from a recording, and in a real browser."""

from __future__ import annotations

import gzip
import itertools
import json
import re
import signal
import socketserver
import struct
import subprocess
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

import pytest

from rig import chromium, http, stats
from rig.chromium import Chromium
from rig.load import Load
from rig.waiting import until

XHTML = "{http://www.w3.org/1999/xhtml}"
ASSERTIONS = ["rps > 1", "exceptions == 0", "p99 < 60s", "harakiri == 0"]
ASSERT = [part for assertion in ASSERTIONS for part in ("--assert", assertion)]


def texts(element: ElementTree.Element) -> str:
    return "".join(element.itertext())


def rows(page: ElementTree.Element, name: str) -> list[list[str]]:
    """The cells of a table's rows."""
    tables = [table for table in page.iter(f"{XHTML}table") if table.get("class") == name]
    return [[texts(cell) for cell in row] for table in tables for row in table.find(f"{XHTML}tbody")]


def watched(rtop: str, stats_at: str, directory: Path, act) -> tuple[subprocess.CompletedProcess, Path]:
    """Watches a server with a page, a recording and JUnit, while `act` does something to it."""
    page, begun, over = directory / "report.html", directory / "begun", directory / "over"
    # rtop starts it when the server has answered, and watches until it ends; minutes bound a failed test.
    script = 'touch "$0"; for i in $(seq 4000); do [ -e "$1" ] && exit; sleep 0.05; done; exit 1'
    command = [rtop, stats_at, "--frequency", "0.2", "--html", page, "--record", directory / "run.rtop"]
    command += ["--junit", directory / "junit.xml", *ASSERT, "--", "sh", "-c", script, begun, over]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            until(begun.exists, "rtop has begun")
            act()
        finally:
            over.touch()
        out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(command, process.returncode, out, err), page


def samples(directory: Path) -> int:
    """How often rtop has recorded what the server says."""
    return gzip.decompress((directory / "run.rtop").read_bytes()).count(b'"document"')


@pytest.fixture
def report(serve, rtop, address, stats_at, tmp_path):
    """The page of a server under load that raised, and was reloaded; and what was printed beside it."""
    server = serve(
        *("--http-socket", address, "--wsgi-file", "probe.py", "--master", "--processes", 2, "--stats", stats_at),
    )

    def act():
        with Load(address, "/pid", clients=4):
            for number in range(8):
                http.get(address, f"/fail?token={quote(f'<script>alert({number})</script>')}")
            server.send(signal.SIGHUP)
            until(lambda: stats.read(stats_at)["generation"] == 2, "the second generation", context=server.log)
            # A few samples of it, so that the charts have lines.
            enough = samples(tmp_path) + 10
            until(lambda: samples(tmp_path) >= enough, "ten samples of the second generation", context=server.log)

    return watched(rtop, stats_at, tmp_path, act)


@pytest.mark.only_rwsgi(why="uWSGI has no generations")
def test_the_page_says_what_the_table_says_and_marks_what_happened(report, rtop, tmp_path):
    done, path = report
    assert done.returncode == 1, (done.stdout, done.stderr)
    text = path.read_text()
    page = ElementTree.fromstring(text)
    printed = [re.split(r"  +", line.strip()) for line in done.stdout.splitlines()[1:]]
    verdicts = rows(page, "verdicts")
    assert verdicts == printed
    assert [row[0] for row in verdicts] == ASSERTIONS
    assert "exceptions == 0" in next(line for line in done.stdout.splitlines() if "FAIL" in line)
    happened = [row[2] for row in rows(page, "happened")]
    assert "generation 2 of the application was loaded" in happened
    classes = {element.get("class") for element in page.iter()}
    assert {"generation", "respawn", "worst", "line l1", "badge fail"} <= classes
    titles = [texts(title) for title in page.iter(f"{XHTML}h3")]
    first = ["Requests per second", "Failures per second", "Latency", "Latency heat map", "Memory", "Memory by worker"]
    assert titles[:6] == first
    # A table behind each chart.
    figures = list(page.iter(f"{XHTML}figure"))
    assert all(figure.find(f"{XHTML}details//{XHTML}tbody/{XHTML}tr") is not None for figure in figures)
    # What clients and applications sent is text.
    assert "<script" not in text
    assert re.search(r"ValueError: failed <script>alert\(\d\)</script>", texts(page))
    assert ElementTree.parse(tmp_path / "junit.xml").getroot().get("failures") == "1"

    # A recording of it says the same.
    again = tmp_path / "again.html"
    replayed = subprocess.run(
        [rtop, "--replay", tmp_path / "run.rtop", "--html", again, *ASSERT], capture_output=True, text=True, timeout=60
    )
    assert (replayed.returncode, replayed.stdout) == (done.returncode, done.stdout)
    second = ElementTree.fromstring(again.read_text())
    for name in ("verdicts", "happened", "values"):
        assert rows(second, name) == rows(page, name), name


def test_it_needs_no_assertion(serve, rtop, address, stats_at, tmp_path):
    serve("--http-socket", address, "--wsgi-file", "probe.py", "--master", "--stats", stats_at)
    http.get(address, "/pid")
    page = tmp_path / "report.html"
    command = [rtop, stats_at, "--frequency", "0.1", "-n", "3", "--html", page]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "not judged" in texts(ElementTree.fromstring(page.read_text()))


def test_a_page_that_cannot_be_written_is_told_before_anything_is_measured(rtop, tmp_path):
    # Nobody answers at this address: it would be waited for.
    page = tmp_path / "missing" / "report.html"
    command = [rtop, str(tmp_path / "no.sock"), "--for", "1h", "--assert", "rps > 1", "--html", page]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"cannot write {page}: No such file or directory" in done.stderr


def test_a_disk_that_is_full_at_the_end_is_no_success(serve, rtop, address, stats_at):
    serve("--http-socket", address, "--wsgi-file", "probe.py", "--master", "--stats", stats_at)
    command = [rtop, stats_at, "--frequency", "0.1", "-n", "2", "--assert", "exceptions == 0", "--html", "/dev/full"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "cannot write /dev/full: No space left on device" in done.stderr
    assert "pass" in done.stdout


def pixels(png: bytes) -> set[bytes]:
    """Every colour in a PNG."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height, depth, kind = struct.unpack(">IIBB", png[16:26])
    assert (depth, kind) in [(8, 2), (8, 6)]
    size, place, packed = {2: 3, 6: 4}[kind], 8, b""
    while place < len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        if png[place + 4 : place + 8] == b"IDAT":
            packed += png[place + 8 : place + 8 + length]
        place += length + 12
    raw, stride, before, colours = zlib.decompress(packed), width * size, bytes(width * size), set()
    for row in range(height):
        start = row * (stride + 1)
        line = bytearray(raw[start + 1 : start + 1 + stride])
        unfilter(raw[start], line, before, size)
        before = bytes(line)
        colours.update(before[x : x + 3] for x in range(0, stride, size))
    return colours


def unfilter(kind: int, line: bytearray, above: bytes, size: int) -> None:
    """Undoes what PNG does to a row."""
    if kind == 2:
        line[:] = bytes((a + b) & 255 for a, b in zip(line, above))
        return
    for place in range(len(line)) if kind else ():
        left = line[place - size] if place >= size else 0
        corner = above[place - size] if place >= size else 0
        up = above[place]
        if kind == 1:
            add = left
        elif kind == 3:
            add = (left + up) // 2
        else:
            guess = left + up - corner
            add = min((left, up, corner), key=lambda value: abs(guess - value))
        line[place] = (line[place] + add) & 255


BOXES = """
(() => {
  const boxes = selector => [...document.querySelectorAll(selector)].map(e => {
    const b = e.getBoundingClientRect();
    return [b.left, b.top, b.right, b.bottom, parseFloat(getComputedStyle(e).fontSize), e.textContent];
  }).filter(b => b[2] > b[0]);
  return {
    width: document.documentElement.clientWidth,
    scroll: document.documentElement.scrollWidth,
    plots: boxes('.plot svg'), words: boxes('.plot span'), figures: boxes('figure'),
    back: getComputedStyle(document.body).backgroundColor,
  };
})()
"""


def overlap(one: list, other: list) -> bool:
    """Whether two boxes cover each other by more than a pixel."""
    return min(one[2], other[2]) - max(one[0], other[0]) > 1 and min(one[3], other[3]) - max(one[1], other[1]) > 1


@pytest.mark.skipif(chromium.found() is None, reason="Chromium is not installed: apt-get install chromium")
@pytest.mark.only_rwsgi(why="uWSGI has no generations")
def test_a_browser_shows_it_on_a_desk_on_a_phone_in_the_dark_and_on_paper(report, tmp_path):
    _, path = report
    browser = Chromium(tmp_path)
    try:
        browser.size(1280, 900)
        browser.open(path)
        for name, width, mobile in (("desk", 1280, False), ("phone", 390, True), ("small", 320, True)):
            browser.size(width, 900, mobile)
            seen = browser.ask(BOXES)
            assert seen["scroll"] <= seen["width"] == width, f"{name}: the page is wider than the window"
            assert len(seen["plots"]) >= 7
            for plot in seen["plots"]:
                assert plot[2] - plot[0] > 200 and plot[3] - plot[1] > 80, (name, plot)
            for word in seen["words"]:
                assert word[4] >= 11, f"{name}: small print: {word}"
                assert -0.5 <= word[0] and word[2] <= width + 0.5, f"{name}: cut off: {word}"
            clashes = [(a, b) for n, a in enumerate(seen["words"]) for b in seen["words"][n + 1 :] if overlap(a, b)]
            assert not clashes, f"{name}: {clashes}"
            # Failures per second: a line, and the marks of the generation and of what was not to be.
            colours = pixels(browser.screenshot(*seen["figures"][1][:4]))
            for what, colour in (("line", "0067b8"), ("generation", "7b3fb8"), ("worst", "c1121f")):
                assert bytes.fromhex(colour) in colours, f"{name}: no {what} is drawn in #{colour}"
            # The heat map has shades between its colour and the card's.
            heat = pixels(browser.screenshot(*seen["figures"][3][:4]))
            assert bytes.fromhex("0067b8") in heat and len(heat) > 8, f"{name}: {sorted(heat)}"
        browser.media(prefers_color_scheme="dark")
        assert browser.ask(BOXES)["back"] == "rgb(20, 23, 27)"
        browser.media("print", prefers_color_scheme="dark")
        assert browser.ask(BOXES)["back"] == "rgb(255, 255, 255)"
        assert browser.pdf().startswith(b"%PDF-")
        # Nothing was fetched, nothing was refused, no script ran.
        asked = [event["params"]["request"]["url"] for event in browser.events if event["method"] == "Network.requestWillBeSent"]
        assert asked == [path.as_uri()]
        told = [event for event in browser.events if event["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")]
        assert told == []
    finally:
        browser.close()


@contextmanager
def many_workers(at: Path, count: int) -> Iterator[None]:
    """A stats server whose workers grow, one of them faster than the others."""
    polls = itertools.count()

    class Answer(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            poll = next(polls)
            workers = [
                {
                    "id": number, "pid": 100 + number, "status": "idle", "requests": poll * number, "respawn_count": 1,
                    "rss": (60 << 20) + number * 150_000 + poll * (400_000 if number == count // 2 else number * 900),
                    "cores": [{"id": 0}],
                }
                for number in range(1, count + 1)
            ]  # fmt: skip
            self.wfile.write(json.dumps({"version": "2.0.31", "pid": 7, "workers": workers}).encode())

    with socketserver.ThreadingUnixStreamServer(str(at), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.skipif(chromium.found() is None, reason="Chromium is not installed: apt-get install chromium")
@pytest.mark.parametrize("workers", [4, 64])
def test_a_browser_shows_the_memory_of_each_worker_and_of_many_the_largest(rtop, tmp_path, workers):
    page, stats_at = tmp_path / "report.html", tmp_path / "stats.sock"
    with many_workers(stats_at, workers):
        command = [rtop, stats_at, "--frequency", "0.05", "-n", "30", "--html", page]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    titles = [texts(title) for title in ElementTree.fromstring(page.read_text()).iter(f"{XHTML}h3")]
    place = titles.index("Memory by worker")
    browser = Chromium(tmp_path)
    try:
        browser.open(page)
        for name, width, mobile in (("desk", 1280, False), ("phone", 390, True), ("small", 320, True)):
            browser.size(width, 900, mobile)
            seen = browser.ask(BOXES)
            assert seen["scroll"] <= seen["width"] == width, f"{name}: the page is wider than the window"
            clashes = [(a, b) for n, a in enumerate(seen["words"]) for b in seen["words"][n + 1 :] if overlap(a, b)]
            assert not clashes, f"{name}: {clashes}"
            figure = seen["figures"][place]
            assert figure[3] - figure[1] < 450, f"{name}: what is said of {workers} workers fills the screen: {figure}"
            picture = pixels(browser.screenshot(*figure[:4]))
            for colour in ("0067b8", "c04a00", "00795a"):
                assert bytes.fromhex(colour) in picture, f"{name}: no line is drawn in #{colour}"
    finally:
        browser.close()
