"""What a server says of its container: limits, how near they are, and who was killed for want of memory."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from rig import http
from rig.cgroup import FakeGroup, real_memory_group
from rig.server import Program, Servers
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI knows nothing of control groups")

MB = 1 << 20


@pytest.fixture
def group(tmp_path) -> FakeGroup:
    return FakeGroup(tmp_path / "cgroup")


@pytest.fixture
def started(serve, address, stats_at, group):
    """Starts a server of the probe in the group."""
    return lambda *more, app="probe.py": serve(
        "--http-socket", address, "--wsgi-file", app, "--stats", stats_at, *more, env=group.env
    )


def test_the_stats_have_the_limits_of_the_container(started, group):
    group.write(
        memory_max=str(512 * MB),
        memory_stat="anon 5\ninactive_file 4857600",
        memory_events="oom 1\noom_kill 2",
        cpu_max="150000 100000",
        cpu_stat="nr_throttled 3\nthrottled_usec 4000",
        cpu_pressure="some avg10=0.00 avg60=0.00 avg300=0.00 total=7",
    )
    server = started()
    document = server.wait_workers(1)
    assert document["cgroup"] == {
        "memory": 100_000_000, "memory_limit": 512 * MB, "cpus": 1.5, "throttled": 3, "throttled_time": 4000,
        "oom_kills": 2, "cpu_pressure": {"some": 7, "full": 0},
    }
    group.write(memory_max="max", memory_stat="inactive_file 0")
    server.wait_stats(
        lambda document: "memory_limit" not in document["cgroup"] and document["cgroup"]["memory"] == 104_857_600,
        "the limit is gone, and all memory is counted",
    )


def test_without_a_container_nothing_is_said_of_one(started, group):
    for file in group.directory.iterdir():
        file.unlink()
    assert "cgroup" not in started().stats()


def test_a_worker_for_each_processor_of_the_quota(started, group):
    usable = len(os.sched_getaffinity(0))
    group.write(cpu_max="50000 100000")
    server = started("--processes", "auto", "--cheaper", 1)
    assert len(server.stats()["workers"]) == 1
    server.logged("processes = auto: 1, for the control group may use 0.5 processors" if usable > 1 else "processes = auto: 1")
    server.logged("cheaper = 1 has no effect with 1 workers")


def test_a_worker_for_each_processor_without_a_quota(started):
    usable = len(os.sched_getaffinity(0))
    server = started("--workers", "auto")
    assert len(server.stats()["workers"]) == usable
    server.logged(rf"processes = auto: {usable}, for this process may run on {usable} processors \(the control group has no")


def test_a_limit_in_percent_is_shared_by_the_workers(started, group):
    group.write(memory_max=str(1024 * MB))
    server = started("--processes", 4, "--reload-on-rss", "80%", "--evil-reload-on-rss", "90%", "--cheaper", 2,
                     "--cheaper-rss-limit-soft", "70%", "--cheaper-rss-limit-hard", "75%")
    assert server.stats()["limits"]["reload_on_rss"] == 1024 * MB * 8 // 10 // 4
    server.logged("reload-on-rss = 80%: 204 MB for each of 4 workers, of the 1024 MB that the control group may use")
    server.logged("evil-reload-on-rss = 90%: 230 MB for each of 4 workers")
    server.logged("cheaper-rss-limit-soft = 70%: 716 MB for all workers")
    server.logged("cheaper-rss-limit-hard = 75%: 768 MB for all workers")
    # A container can be given more while it runs: that counts from the next reload on.
    group.write(memory_max=str(2048 * MB))
    server.send(signal.SIGHUP)
    server.wait_stats(lambda document: document["limits"]["reload_on_rss"] == 2048 * MB * 8 // 10 // 4, "the new limit")


def test_a_limit_in_percent_is_shared_by_the_workers_that_there_are(started, group, tmp_path):
    group.write(memory_max=str(1024 * MB))
    settings = tmp_path / "app.ini"
    settings.write_text("[uwsgi]\nprocesses = 4\nreload-on-rss = 80%\n")
    server = started("--ini", settings)
    share = server.stats()["limits"]["reload_on_rss"]
    # Their number stays as it is while the server runs.
    settings.write_text("[uwsgi]\nprocesses = 2\nreload-on-rss = 80%\n")
    server.send(signal.SIGHUP)
    document = server.wait_stats(lambda document: document["reloads"]["done"], "a reload")
    assert (len(document["workers"]), document["limits"]["reload_on_rss"]) == (4, share)


def test_a_limit_in_percent_without_a_container_is_of_the_machine(started):
    kilobytes = int(re.search(r"MemTotal: *(\d+)", Path("/proc/meminfo").read_text())[1])
    server = started("--reload-on-rss", "50%")
    assert server.stats()["limits"]["reload_on_rss"] == kilobytes * 1024 // 2
    server.logged("that the machine has")


GROWS = """
KEPT = []
def application(environ, start_response):
    if environ["PATH_INFO"] == "/grow":
        KEPT.append(bytearray(int(environ["QUERY_STRING"])))
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


@pytest.fixture
def grows(tmp_path) -> Path:
    file = tmp_path / "grows.py"
    file.write_text(GROWS)
    return file


def test_a_worker_that_has_more_than_its_share_is_replaced(started, group, address, grows):
    group.write(memory_max=str(400 * MB))
    server = started("--processes", 2, "--reload-on-rss", "75%", "--min-worker-lifetime", 0, app=grows)
    server.wait_workers(2)
    assert http.get(address, f"/grow?{200 * MB}").status == 200
    server.wait_stats(lambda document: sum(worker["recycled"]["rss"] for worker in document["workers"]) == 1, "one is replaced")
    server.logged("above reload-on-rss \\(150\\): replacing it")


def test_a_share_that_the_application_alone_exceeds_is_warned_of(started, group):
    group.write(memory_max=str(8 * MB))
    server = started("--processes", 2, "--reload-on-rss", "80%")
    server.logged(
        r"reload-on-rss = 80% is 3 MB for each worker, and the application has \d+ MB as soon as it is loaded: "
        "every worker is replaced again and again; run fewer workers"
    )


def test_a_worker_that_the_kernel_kills_for_want_of_memory_is_told_from_others(started, group):
    group.write(memory_max=str(512 * MB), memory_events="oom_kill 3")
    server = started("--processes", 2)
    first, second = (worker["pid"] for worker in server.wait_workers(2)["workers"])
    os.kill(first, signal.SIGKILL)
    server.logged(rf"worker 1 \(pid {first}\) died")
    group.write(memory_events="oom_kill 4")
    os.kill(second, signal.SIGKILL)
    server.logged(rf"worker 2 \(pid {second}\) was killed by the kernel for want of memory \(its control group may use 512 MB\)")
    assert len(server.lines("for want of memory")) == 1


def test_a_real_kill_for_want_of_memory_is_told(program, tmp_path, address, stats_at, grows):
    group, why = real_memory_group(f"rwsgi-test-{os.getpid()}")
    if group is None:
        pytest.skip(why)
    wrapper = tmp_path / "in-group"
    wrapper.write_text(f'#!/bin/sh\necho $$ > {group}/cgroup.procs\nexec {program.path} "$@"\n')
    wrapper.chmod(0o755)
    servers = Servers(Program(str(wrapper)), tmp_path)
    try:
        for file, value in (("memory.limit_in_bytes", 200 * MB), ("memory.memsw.limit_in_bytes", 200 * MB),
                            ("memory.max", 200 * MB), ("memory.swap.max", 0)):
            if (group / file).exists():
                (group / file).write_text(str(value))
        server = servers("--http", address, "--wsgi-file", grows, "--stats", stats_at, "--processes", 2)
        cgroup = server.wait_workers(2)["cgroup"]
        assert (cgroup["memory_limit"], cgroup["oom_kills"]) == (200 * MB, 0)
        assert 0 < cgroup["memory"] < 200 * MB
        assert http.get(address, f"/grow?{400 * MB}").status == 502
        server.logged(r"worker \d \(pid \d+\) was killed by the kernel for want of memory \(its control group may use 200 MB\)")
        server.wait_stats(lambda document: document["cgroup"]["oom_kills"] == 1, "the kill is counted")
    finally:
        servers.stop_all()
        until(lambda: _removed(group), "the group is removed")


def _removed(group: Path) -> bool:
    try:
        group.rmdir()
    except OSError:
        return False
    return True
