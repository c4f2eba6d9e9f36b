"""One line for each request, with everything that one asks of it the morning after."""

from __future__ import annotations

import re

import pytest

from rig import stats
from rig.http import Closed
from rig.site import KINDS, every_kind
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI's line is another")


def line_of(server, token: str) -> str:
    """The one line about the request with this token."""
    until(lambda: server.lines(token), f"a line about {token}", context=server.log)
    lines = server.lines(token)
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_line_tells_everything(serve, stats_at, kind):
    site = every_kind(serve, "--wsgi-file", "probe.py", "--processes", 2, "--threads", 2, "--stats", stats_at)[kind]
    answer = site.request("POST", f"/status?code=404&body=hello&length=1&token=line-{kind}", body=b"sent")
    line = line_of(site.server, f"token=line-{kind}")
    assert re.search(r"\d\d\d\d-\d\d-\d\d[T ]\d\d:\d\d:\d\d|\w{3} \d\d.*\d\d:\d\d:\d\d", line), line
    assert f"POST /status?code=404&body=hello&length=1&token=line-{kind}" in line
    assert ("192.0.2.7" if kind == "socket" else "127.0.0.1") in line
    assert re.search(r"\b404\b", line)
    assert re.search(r"\d(\.\d+)? ?m(s|sec)", line)
    if kind != "http":
        assert re.search(rf"\b{answer.size}\b", line), f"{answer.size} bytes were received: {line}"
    # The worker and the thread that the stats name.
    worker = next(w for w in site.server.stats()["workers"] if w["requests"])
    core = next(c for c in worker["cores"] if c["requests"])
    assert re.search(rf"(worker|wid|w)\W*{worker['id']}\b", line, re.IGNORECASE), line
    assert re.search(rf"(thread|c)\W*{core['id']}\b|\b{worker['id']}[/.:]{core['id']}\b", line, re.IGNORECASE), line
    assert not re.search("rss|vsz", line, re.IGNORECASE)


def test_memory_is_in_the_line_when_asked_for(serve, stats_at):
    site = every_kind(serve, "--wsgi-file", "probe.py", "--memory-report", "--stats", stats_at)["http-socket"]
    site.get("/pid?token=memory")
    line = line_of(site.server, "token=memory")
    assert re.search("rss", line, re.IGNORECASE) and re.search("vsz|address", line, re.IGNORECASE), line
    numbers = [int(number) for number in re.findall(r"\d{7,}", line)]
    rss = site.server.stats()["workers"][0]["rss"]
    assert not numbers or any(abs(number - rss) < rss * 0.5 for number in numbers)


def test_there_is_no_line_when_logging_is_disabled(serve, stats_at):
    site = every_kind(serve, "--wsgi-file", "probe.py", "--disable-logging", "--stats", stats_at)["http-socket"]
    for _ in range(5):
        site.get("/pid?token=quiet")
    until(lambda: stats.total(site.server.stats(), "requests") == 5, "all counted")
    # What the application says is logged all the same, and comes after.
    site.get("/errors?token=loud")
    site.server.logged("written loud")
    assert not site.server.lines("token=quiet")


def test_a_request_cannot_forge_a_line(serve):
    site = every_kind(serve, "--wsgi-file", "probe.py")["socket"]
    site.get("/pid?token=first%0AFORGED\x1b[31m\nFORGED")
    line = line_of(site.server, "token=first")
    assert "\x1b" not in line
    assert not [other for other in site.server.log().splitlines() if other.startswith("FORGED")]


def test_every_request_has_one_line(serve, stats_at):
    site = every_kind(serve, "--wsgi-file", "probe.py", "--processes", 4, "--threads", 2, "--stats", stats_at)["http-socket"]
    for number in range(300):
        try:
            site.get(f"/pid?token=number-{number}." if number % 10 else f"/fail?token=number-{number}.")
        except Closed:
            pass
    until(lambda: stats.total(site.server.stats(), "requests") == 300, "all counted")
    for number in range(300):
        # A failure has lines of its own besides.
        found = until(lambda: [line for line in site.server.lines(f"token=number-{number}.") if " thread " in line], f"line {number}")
        assert len(found) == 1, found
