"""Processes give back what only their start needed."""

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


def own_data_of_python(pid: int) -> int:
    """Kilobytes of Python's library that a process has for itself, because they were written to."""
    smaps = Path(f"/proc/{pid}/smaps").read_text()
    parts = re.findall(r"^\S+ rw-p .*/libpython[^/]*\.so\S*\n((?:[A-Z]\S+: .*\n)+)", smaps, re.MULTILINE)
    if not parts:
        pytest.skip("this Python has no library of its own")
    return sum(int(written) for part in parts for written in re.findall(r"^Anonymous: +(\d+)", part, re.MULTILINE))


@pytest.mark.parametrize("option", ["--http-socket", "--http"])
def test_a_process_without_python_keeps_little_of_its_data(serve, address, option):
    server = serve(option, address, "--wsgi-file", "echo.py", "--master")
    assert http.get(address, "/").status == 200
    [python] = [process for process in server.processes() if process.name == "rwsgi forksrv"]
    without = [server.pid, *(process.pid for process in server.processes() if process.name.startswith("rwsgi http"))]
    for pid in without:
        assert own_data_of_python(pid) < own_data_of_python(python.pid) / 4
    # What runs at the end of the library finds what it needs.
    server.send(15)
    assert server.wait_exit() == 0
