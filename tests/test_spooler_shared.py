"""A directory of jobs with several who work in it: real uWSGI before, after and beside us, and spoolers that are killed."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter

import pytest

from rig import processes
from rig.each import servers
from rig.jobs import spooling
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="it is about rwsgi beside uWSGI, and after kills that uWSGI does not survive")

# The storm's jobs. JOBS=500 is for a hurry.
JOBS = int(os.environ.get("JOBS", "10000"))
KILLS = 20


@pytest.fixture
def serve_uwsgi(program, venv_bin, tmp_path):
    """Starts real uWSGIs."""
    place = tmp_path / "uwsgi"
    place.mkdir()
    started = servers("uwsgi", program, venv_bin, place)
    yield started
    started.stop_all()


@pytest.mark.parametrize("ours_first", [True, False], ids=["handed to uWSGI", "taken over from uWSGI"])
def test_jobs_that_one_server_left_are_run_by_the_other(serve, serve_uwsgi, tmp_path, ours_first):
    first, second = (serve, serve_uwsgi) if ours_first else (serve_uwsgi, serve)
    (tmp_path / "jobs").mkdir()
    jobs = spooling(first, tmp_path)
    os.kill(jobs.a_spooler(), signal.SIGSTOP)
    jobs.queue(1, 10)
    jobs.queue(11, 12, priority="3")
    jobs.queue(13, body="of no use, but there")
    jobs.server.destroy()
    assert len(jobs.files()) == 13
    spooling(second, tmp_path, "--spooler-ordered", "--spooler-frequency", 1).wait_ended(*range(1, 14))
    assert sorted(jobs.record.begun()) == list(range(1, 14)), "each has run once"


def test_jobs_can_be_queued_for_the_spooler_of_another_server(serve, serve_uwsgi, tmp_path):
    (tmp_path / "jobs").mkdir()
    jobs = spooling(serve, tmp_path, spooler="--spooler-external")
    jobs.queue(1, 3)
    assert len(jobs.files()) == 3
    assert "spoolers" not in jobs.server.stats()
    spooling(serve_uwsgi, tmp_path, "--spooler-frequency", 1)
    jobs.wait_ended(1, 2, 3)


def test_uwsgi_and_rwsgi_share_a_directory(serve, serve_uwsgi, tmp_path):
    (tmp_path / "jobs").mkdir()
    theirs = spooling(serve_uwsgi, tmp_path, "--spooler-processes", 2, "--spooler-frequency", 1)
    ours = spooling(serve, tmp_path, "--spooler-processes", 2)
    # As many as there are spoolers, so that each has one. Of the others one server may run all: ours has a low priority.
    go = tmp_path / "go"
    ours.queue(1000, 1003, until=str(go))
    until(lambda: len(ours.record.begun()) == 4, "each has one", context=lambda: f"{theirs.server.log()}\n{ours.server.log()}")
    pids = {spooler["pid"] for spooler in ours.spoolers()}
    assert len(pids & set(ours.record.pids())) == len(set(ours.record.pids()) - pids) == 2
    go.touch()
    for first in range(0, 300, 20):
        theirs.queue(first, first + 9, seconds=0.002)
        ours.queue(first + 10, first + 19, seconds=0.002)
    ours.wait_ended(*range(300), *range(1000, 1004))
    assert [number for number, times in Counter(ours.record.begun()).items() if times > 1] == []


def test_uwsgi_leaves_a_job_alone_that_is_run_here(serve, serve_uwsgi, tmp_path):
    jobs = spooling(serve, tmp_path)
    go = tmp_path / "go"
    jobs.queue(1, until=str(go))
    jobs.wait_begun(1)
    theirs = spooling(serve_uwsgi, tmp_path, "--spooler-frequency", 1)
    theirs.queue(2)
    until(lambda: jobs.record.ended() == [2], "the other has looked through the directory", context=theirs.server.log)
    go.touch()
    jobs.wait_ended(1)
    assert jobs.record.begun().count(1) == 1


def test_a_killed_spooler_leaves_its_job_to_another(serve, tmp_path):
    jobs = spooling(serve, tmp_path, "--spooler-processes", 2, "--spooler-frequency", 3600)
    go = tmp_path / "go"
    jobs.queue(1, until=str(go))
    jobs.wait_begun(1)
    [first] = jobs.record.pids()
    processes.kill(first)
    jobs.wait_begun(1, times=2)
    jobs.server.logged(rf"spooler \d \(pid {first}\) ended while it ran uwsgi_spoolfile_on_\S+ for \d+ s \(try 1\): again at once")
    go.touch()
    jobs.wait_ended(1)
    document = jobs.server.wait_stats(lambda d: sum(s["done"] for s in d["spoolers"]) == 1, "it is counted")
    assert sum(spooler["failed"] for spooler in document["spoolers"]) == 1


def test_a_job_that_kills_its_spoolers_does_not_keep_the_others_waiting(serve, tmp_path):
    jobs = spooling(serve, tmp_path, "--spooler-frequency", 3600)
    go = tmp_path / "never"
    jobs.queue(1, until=str(go))
    for times in [1, 2]:
        jobs.wait_begun(1, times=times)
        processes.kill(jobs.a_spooler())
    jobs.queue(2)
    until(lambda: jobs.record.ended() == [2], "the other job is done", context=jobs.server.log)
    jobs.server.logged(r"\(try 2\): again in 3600 s")


def test_jobs_wait_when_the_whole_server_is_killed(serve, tmp_path):
    jobs = spooling(serve, tmp_path, "--spooler-processes", 2)
    go = tmp_path / "go"
    jobs.queue(1, 4, until=str(go))
    until(lambda: len(jobs.record.begun()) == 2, "two are in progress", context=jobs.server.log)
    jobs.server.send(signal.SIGKILL)
    go.touch()
    jobs.server.wait_exit()
    jobs.server.wait_gone()
    assert len(jobs.record.ended()) + len(jobs.files()) == 4, "what was in progress could finish"
    again = spooling(serve, tmp_path)
    again.wait_ended(1, 2, 3, 4)


def total_done(document) -> int:
    return sum(spooler["done"] for spooler in document["spoolers"])


@pytest.mark.timeout(600)
def test_kills_lose_no_job_and_repeat_none_but_those_in_killed_hands(serve, tmp_path):
    jobs = spooling(serve, tmp_path, "--spooler-processes", 3, "--spooler-quiet")
    chance = random.Random(7)
    killed: set[int] = set()
    step = JOBS // KILLS
    for first in range(0, JOBS, step):
        jobs.queue(first, min(first + step, JOBS) - 1)
        victims = [spooler["pid"] for spooler in jobs.spoolers() if spooler["pid"]]
        if victims:
            victim = chance.choice(victims)
            killed.add(victim)
            processes.kill(victim)
    jobs.wait_ended(*range(JOBS), deadline=240)
    assert set(jobs.record.begun()) == set(range(JOBS))
    last_of = {int(words[1]): int(words[0]) for words in jobs.record.lines("begin")}
    in_killed_hands = {last_of[pid] for pid in killed if pid in last_of}
    repeated = {number for number, times in Counter(jobs.record.begun()).items() if times > 1}
    assert repeated <= in_killed_hands
    # How many depends on how soon new ones are there, of which a busy machine decides.
    assert len(killed) >= 3
    # One that was killed between removing its job and counting it has counted it as failed; a job is counted when it is gone.
    done = jobs.server.wait_stats(lambda document: total_done(document) >= JOBS - len(killed), "they are counted")
    assert total_done(done) <= JOBS
