"""The fork server gives back the code that only its start and its forks needed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rig import http
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI has no fork server")


def code_held(pid: int) -> float:
    """How much of the server's own code a process holds: a share of all of it."""
    smaps = Path(f"/proc/{pid}/smaps").read_text()
    parts = re.findall(r"^\S+ r-xp .*/_?rwsgi[^/\s]*\nSize: +(\d+) kB\n(?:.*\n){2}Rss: +(\d+) kB", smaps, re.MULTILINE)
    # A linker may have made several of it.
    assert parts, smaps
    return sum(int(held) for _, held in parts) / sum(int(size) for size, _ in parts)


def test_a_fork_server_that_has_nothing_to_do_holds_little_of_its_code(serve, address):
    server = serve("--http-socket", address, "--wsgi-file", "echo.py", "--master")
    assert http.get(address, "/").status == 200
    [process] = [process for process in server.processes() if process.name == "rwsgi forksrv"]
    # One that gives back nothing after a fork holds a sixth.
    until(lambda: code_held(process.pid) < 1 / 8, "it has given back code", context=server.log)
    # It forks as before.
    server.send(1)
    until(lambda: http.get(address, "/").status == 200 and "generation 2" in server.log(), "it was reloaded")
