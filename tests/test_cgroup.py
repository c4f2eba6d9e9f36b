"""What a server says of its container: limits, how near they are, and who was killed for want of memory."""

from __future__ import annotations

import pytest

from rig.cgroup import FakeGroup

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
    document = server.wait_stats(lambda document: "memory_limit" not in document["cgroup"], "the limit is gone")
    assert document["cgroup"]["memory"] == 104_857_600


def test_without_a_container_nothing_is_said_of_one(started, group):
    for file in group.directory.iterdir():
        file.unlink()
    assert "cgroup" not in started().stats()
