"""Files in a spooler's directory that are not to be run: of other users, and larger than a job may be."""

from __future__ import annotations

import os
import time

import pytest

from rig.jobs import PREFIX, spooling
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI runs whatever is there, of whatever size it can get memory for")

STRANGER = 23456


def a_job(jobs, number: int) -> bytes:
    """What the file of a queued job holds. The job itself is taken away."""
    name = jobs.queue(number, at=time.time() + 3600)
    content = (jobs.directory / name).read_bytes()
    (jobs.directory / name).unlink()
    return content


def put(directory, name, content, owner=None, size=0):
    """Puts a whole file there, under its name at once."""
    unfinished = directory / f"unfinished-{name}"
    unfinished.write_bytes(content)
    if size:
        os.truncate(unfinished, size)
    if owner is not None:
        os.chown(unfinished, owner, owner)
    unfinished.rename(directory / f"{PREFIX}{name}")
    return directory / f"{PREFIX}{name}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
def test_a_job_of_another_user_is_left_alone_and_named_once(serve, tmp_path):
    jobs = spooling(serve, tmp_path, "--spooler-frequency", 1)
    (tmp_path / "jobs").chmod(0o777)
    theirs = [put(jobs.directory, f"x_1_{n}_1_1_{n}", a_job(jobs, n), STRANGER) for n in (1, 2)]
    # Either may be met first.
    jobs.server.logged(rf"spooler 1: '{PREFIX}x_1_(1_1_1_1|2_1_1_2)' belongs to user {STRANGER} and is not run")
    # Several scans later.
    for number in (11, 12, 13):
        put(jobs.directory, f"x_1_{number}_1_2_{number}", a_job(jobs, number))
        until(lambda: number in jobs.record.ended(), f"our job {number} is done", context=jobs.server.log)
    assert set(jobs.record.begun()) == {11, 12, 13}
    assert all(path.exists() for path in theirs)
    assert len(jobs.server.lines("belongs to user")) == 1


def test_a_job_above_the_limit_is_set_aside_unread_and_named(serve, tmp_path):
    jobs = spooling(serve, tmp_path)
    # More than there is memory; the disk has a few bytes of it.
    large = put(jobs.directory, "x_1_1_1_1_1", a_job(jobs, 1), size=1 << 42)
    too_large = rf"it has {1 << 42} bytes, more than spooler-job-limit \({1 << 30}\)"
    jobs.server.logged(f"'{large.name}' is no job: {too_large}: set")
    assert (jobs.directory / ".bad" / large.name).stat().st_size == 1 << 42
    jobs.queue(5)
    jobs.wait_ended(5)
    assert jobs.record.begun() == [5]


def test_a_job_above_the_limit_is_not_queued(serve, tmp_path):
    jobs = spooling(serve, tmp_path, "--spooler-job-limit", 10_000)
    jobs.queue(1, body="x" * 5_000)
    jobs.wait_ended(1)
    with pytest.raises(AssertionError, match="500"):
        jobs.queue(2, body="x" * 20_000)
    jobs.server.logged(r"unable to spool job: it has 20\d+ bytes, more than spooler-job-limit \(10000\)")
    assert jobs.files() == []
