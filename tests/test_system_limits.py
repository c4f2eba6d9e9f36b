"""What the system is asked for: processors, priorities, limits. As the kernel shows it of the processes."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from rig import http, processes
from rig.waiting import until


def status_of(pid, name):
    found = re.search(rf"^{name}:\s*(.*)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return found and found[1].strip()


def limit_of(pid, name):
    found = re.search(rf"^{name}\s+(\S+)\s+(\S+)", Path(f"/proc/{pid}/limits").read_text(), re.MULTILINE)
    return found and found.groups()


def nice_of(pid):
    return os.getpriority(os.PRIO_PROCESS, pid)


@pytest.fixture
def workers(serve, address, stats_at):
    """Starts a server with these options; its master's process id and those of its workers."""

    def start(count, *options):
        server = serve(
            *("--http-socket", address, "--master", "--wsgi-file", "worklife.py", "--processes", count),
            *("--stats", stats_at, *options),
        )
        document = server.wait_workers(count)
        by_number = sorted(document["workers"], key=lambda worker: worker["id"])
        assert http.get(address, "/").status == 200
        return server.pid, [worker["pid"] for worker in by_number]

    return start


def expand(text):
    """The numbers of a list as the kernel writes it: `0-1,4`."""
    numbers = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        numbers.extend(range(int(first), int(last or first) + 1))
    return numbers


@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_worker_has_the_next_processors(workers, count):
    online = os.sysconf("SC_NPROCESSORS_ONLN")
    allowed = os.sched_getaffinity(0)
    master, pids = workers(3, "--cpu-affinity", count)
    for index, pid in enumerate(pids):
        first = index * count % online
        wanted = {(first + step) % online for step in range(min(count, online))}
        shown = lambda: set(expand(status_of(pid, "Cpus_allowed_list")))  # noqa: E731
        until(lambda: shown() == (wanted & allowed or allowed), f"worker {index + 1} is bound to {wanted}")
    assert set(expand(status_of(master, "Cpus_allowed_list"))) == allowed, "the master is bound to none"


def test_every_process_has_the_nice_value(workers):
    here = nice_of(0)
    wanted = min(here + 5, 19)
    master, pids = workers(2, "--prio", wanted)
    assert [nice_of(pid) for pid in [master, *pids]] == [wanted] * 3


def test_every_process_has_the_limit_of_descriptors(workers):
    master, pids = workers(2, "--max-fd", 777)
    assert {limit_of(pid, "Max open files") for pid in [master, *pids]} == {("777", "777")}


def test_a_worker_has_the_limit_of_processes(workers):
    _, [pid] = workers(1, "--limit-nproc", 5555)
    until(lambda: limit_of(pid, "Max processes") == ("5555", "5555"), "the worker is limited")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may lock as much memory as it likes")
def test_memory_is_never_swapped(workers):
    master, pids = workers(1, "--never-swap")
    for pid in [master, *pids]:
        until(lambda: int(status_of(pid, "VmLck").split()[0]) > 1000, f"the memory of {processes.look(pid)} is locked")


@pytest.mark.only_rwsgi(why="the log's words")
def test_what_the_system_refuses_is_a_warning(serve, address):
    server = serve("--http-socket", address, "--wsgi-file", "worklife.py", "--max-fd", 2**31, "--limit-nproc", "many")
    server.logged(r"max-fd: cannot allow 2147483648 descriptors")
    assert http.get(address, "/").status == 200
