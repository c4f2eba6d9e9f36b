"""Jobs of `@spool(pass_arguments=True)` behind Flask: run at once, in order, again when they fail, never lost."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from rig import http
from rig.jobs import PREFIX, spooling
from rig.waiting import until

only_rwsgi = pytest.mark.only_rwsgi
NEVER = 86_400


def test_jobs_run_with_the_options_of_the_guides(serve, tmp_path):
    """One that is queued while the spoolers sleep starts at once, and not at the next scan."""
    jobs = spooling(
        serve, tmp_path, "--spooler-processes", 2, "--spooler-frequency", NEVER, "--spooler-max-tasks", 100,
        "--spooler-harakiri", 60, "--processes", 2,
    )  # fmt: skip
    jobs.queue(1, 20)
    jobs.wait_ended(*range(1, 21))
    assert sorted(jobs.record.begun()) == list(range(1, 21)), "each has run once"
    assert len(jobs.spoolers()) == 2
    assert {spooler["dir"] for spooler in jobs.spoolers()} == {str(jobs.directory)}
    # Under uWSGI a job that did not end the process has run in the job's directory.
    assert {words[3] for words in jobs.record.lines("end")} == {str(jobs.directory)}


def test_a_body_of_any_size_and_everything_else_within_64_kb(serve, tmp_path):
    jobs = spooling(serve, tmp_path)
    body = b"b" * 1_000_000
    http.request(jobs.address, "POST", "/body", {"Content-Length": str(len(body))}, body)
    until(lambda: jobs.record.lines("body") == [["1000000", "large"]], "the body has come", context=jobs.server.log)
    assert jobs.post("/try/too-large").startswith("ValueError: unable to spool job")


def test_what_is_no_job_is_a_value_error(serve, tmp_path):
    jobs = spooling(serve, tmp_path)
    only_bytes = "ValueError: spooler callable dictionary must contains only bytes"
    assert jobs.post("/try/text-names") == only_bytes
    assert jobs.post("/try/text-values") == only_bytes
    assert jobs.post("/try/number") == only_bytes
    assert jobs.post("/try/list") == "ValueError: The argument of spooler callable must be a dictionary"
    assert jobs.post("/try/elsewhere").startswith("ValueError: unable to spool job")
    assert jobs.files() == []


def test_what_the_module_tells_of_jobs(serve, tmp_path):
    # uWSGI finds a job that came while it was at another only when it looks again.
    jobs = spooling(serve, tmp_path, "--spooler-frequency", 1)
    go = tmp_path / "go"
    name = jobs.queue(1, until=str(go))
    jobs.wait_begun(1)
    document = json.loads(http.get(jobs.address, "/jobs").body)
    spooler = jobs.spoolers()[0]
    assert document == {
        "jobs": [name], "pids": [spooler["pid"]], "first": spooler["pid"], "spoolers": [str(jobs.directory)],
    }  # fmt: skip
    waiting = jobs.queue(2)
    assert http.get(jobs.address, f"/task/{waiting}").body == b"run"
    assert http.get(jobs.address, "/task/uwsgi_spoolfile_on_nobody").body == b"none"
    go.touch()
    jobs.wait_ended(1, 2)


def test_jobs_may_queue_jobs(serve, tmp_path):
    jobs = spooling(serve, tmp_path, "--spooler-frequency", 1)
    jobs.post("/another", number=7)
    jobs.wait_ended(7)


def test_a_job_that_raises_is_tried_again_until_it_is_done(serve, tmp_path):
    jobs = spooling(serve, tmp_path, "--spooler-frequency", 1)
    fixed = tmp_path / "fixed"
    jobs.queue(1, fail_without=str(fixed))
    jobs.queue(2)
    until(lambda: jobs.record.ended() == [2], "others do not wait for it", context=jobs.server.log)
    jobs.wait_begun(1, times=3)
    assert jobs.record.ended() == [2]
    fixed.touch()
    jobs.wait_ended(1)


@only_rwsgi(why="uWSGI counts no tries")
def test_tries_are_counted_and_outlive_the_spooler(serve, tmp_path):
    jobs = spooling(serve, tmp_path, "--spooler-frequency", 1, "--spooler-max-tasks", 1)
    jobs.queue(1, fail_without=str(tmp_path / "never"))
    jobs.wait_begun(1, times=3)
    jobs.server.logged(r"raised an exception \(try 3\): again in 1 s")
    assert len(jobs.record.pids()) >= 3, "each in another process"
    jobs.server.wait_stats(lambda document: document["spoolers"][0]["failed"] >= 3, "all tries are counted")


def test_the_set_frequency_takes_the_place_of_the_configured_one(serve, tmp_path):
    jobs = spooling(serve, tmp_path, "--spooler-frequency", 2)
    assert jobs.post("/frequency/1") == "True"
    jobs.queue(1, fail_without=str(tmp_path / "never"))
    jobs.wait_begun(1, times=3)


@pytest.mark.parametrize("what", [-1, 0, 5])
def test_what_a_raw_function_returns_decides(serve, tmp_path, what):
    """-1 (and whatever else is not known) means again, 0 that it is somebody else's."""
    jobs = spooling(serve, tmp_path, "--spooler-frequency", 1)
    jobs.post(f"/returns/{what}")
    until(lambda: len(jobs.record.lines("returns")) >= 2, "it has run twice", context=jobs.server.log)
    assert len(jobs.files()) == 1
    jobs.post("/returns/-2")
    until(lambda: ["-2"] in jobs.record.lines("returns") and len(jobs.files()) == 1, "the other is done")


def test_a_job_runs_no_earlier_than_at(serve, tmp_path):
    jobs = spooling(serve, tmp_path, "--spooler-frequency", 1)
    never = jobs.queue(1, at=str(int(time.time()) + NEVER))
    at = int(time.time()) + 3
    jobs.queue(2, at=str(at))
    jobs.queue(3)
    until(lambda: {2, 3} <= set(jobs.record.ended()) and len(jobs.files()) == 1, "both are done", context=jobs.server.log)
    assert [Path(name).name for name in jobs.files()] == [Path(never).name]
    # Which of the two was first is for the machine to say, when it takes three seconds to queue one.
    assert 1 not in jobs.record.begun()
    ended = {int(words[0]): float(words[2]) for words in jobs.record.lines("end")}
    assert ended[2] >= at


def test_priorities_go_first_and_then_the_order_of_queueing(serve, tmp_path):
    """uWSGI has priorities only with spooler-ordered."""
    jobs = spooling(serve, tmp_path, "--spooler-ordered", "--spooler-frequency", 1)
    go = tmp_path / "go"
    jobs.queue(0, until=str(go))
    jobs.wait_begun(0)
    jobs.queue(20, 29)
    jobs.queue(10, 12, priority="10")
    jobs.queue(1, 3, priority="9")
    go.touch()
    jobs.wait_ended(*range(20, 30))
    assert jobs.record.begun() == [0, 1, 2, 3, 10, 11, 12, *range(20, 30)]


@only_rwsgi(why="uWSGI looks at them again and again, or deletes them")
def test_a_file_that_is_no_job_is_set_aside_with_one_line(serve, tmp_path):
    place = tmp_path / "jobs"
    place.mkdir()
    bad = {"garbage": b"hello\n", "cut": b"\x11\xff\x00\x00\x01\x00a", "sums": b"\x11\x04\x00\x00\x09\x00ab"}
    for name, content in bad.items():
        (place / f"{PREFIX}{name}").write_bytes(content)
    (place / f"{PREFIX}link").symlink_to("/etc/passwd")
    (place / "notes.txt").write_text("mine")
    jobs = spooling(serve, tmp_path, "--spooler-frequency", 1, "--spooler-processes", 2)
    until(lambda: len(list(place.glob(".bad/*"))) == 4, "all are set aside", context=jobs.server.log)
    jobs.queue(1)
    jobs.wait_ended(1)
    assert {path.name for path in (place / ".bad").iterdir()} == {f"{PREFIX}{name}" for name in [*bad, "link"]}
    assert (place / ".bad" / f"{PREFIX}garbage").read_bytes() == b"hello\n"
    assert (place / "notes.txt").read_text() == "mine"
    jobs.server.logged("is no job", 4)
    assert len(jobs.server.lines("is no job")) == 4
    jobs.server.logged(r"no job: it does not begin as a job does \(its first byte is 104 instead of 17\): set aside as")


@only_rwsgi(why="uWSGI never looks at it again")
def test_an_empty_file_has_time_to_be_written(serve, tmp_path):
    """uWSGI opens a job under its own name and locks it a moment later."""
    jobs = spooling(serve, tmp_path, "--spooler-frequency", 1)
    file = jobs.directory / f"{PREFIX}slow"
    file.touch()
    jobs.queue(1)
    until(lambda: jobs.record.ended() == [1], "the other job is done", context=jobs.server.log)
    assert file.exists()
    old = time.time() - 60
    os.utime(file, (old, old))
    until(lambda: not file.exists(), "nobody has written it", context=jobs.server.log)
    jobs.server.logged("no job: it is empty: set aside")


def test_a_spooler_is_replaced_after_its_tasks(serve, tmp_path):
    jobs = spooling(serve, tmp_path, "--spooler-max-tasks", 2)
    jobs.queue(1, 6)
    jobs.wait_ended(*range(1, 7))
    assert list(jobs.record.pids().values()) == [2, 2, 2]
    until(lambda: jobs.spoolers()[0]["respawns"] >= 2, "the respawns are counted")


def test_a_job_that_takes_too_long_ends_with_its_spooler_and_is_tried_again(serve, tmp_path):
    jobs = spooling(serve, tmp_path, "--spooler-harakiri", 1, "--spooler-frequency", 1)
    go = tmp_path / "go"
    jobs.queue(1, until=str(go))
    jobs.wait_begun(1, times=2)
    go.touch()
    jobs.wait_ended(1)
    if not serve.program.is_uwsgi:
        jobs.server.logged(r"spooler-harakiri: spooler 1 \(pid \d+\) runs uwsgi_spoolfile_on_\S+ for longer than the 1 s")
        jobs.server.wait_stats(lambda document: document["spoolers"][0]["failed"] >= 1, "it is counted")


def test_jobs_run_where_spooler_chdir_says(serve, tmp_path):
    jobs = spooling(serve, tmp_path, "--spooler-chdir", tmp_path)
    jobs.queue(1)
    jobs.wait_ended(1)
    assert jobs.record.lines("end")[0][3] == str(tmp_path)


@only_rwsgi(why="uWSGI loads no application into spoolers with lazy-apps")
@pytest.mark.parametrize("options", [[], ["--spooler-import", "jobs"]], ids=["application", "spooler-import"])
def test_with_lazy_apps_spoolers_have_functions_too(serve, tmp_path, options):
    jobs = spooling(serve, tmp_path, "--lazy-apps", *options)
    jobs.queue(1)
    jobs.wait_ended(1)


@only_rwsgi(why="uWSGI tells only of processes and tasks")
def test_the_stats_tell_of_the_queue_and_of_what_came_of_jobs(serve, tmp_path):
    jobs = spooling(serve, tmp_path)
    go = tmp_path / "go"
    jobs.queue(1, until=str(go))
    jobs.wait_begun(1)
    jobs.queue(2, 4)
    jobs.queue(5, at=str(int(time.time()) + 1000))
    # What the spooler says of itself, and what is counted in its directory, come one after the other.
    document = jobs.server.wait_stats(
        lambda d: (d["spoolers"][0]["queue"], d["spoolers"][0]["running"]) == (4, 1), "one job runs, and four wait"
    )
    spooler = document["spoolers"][0]
    assert spooler["job"]["name"].startswith(PREFIX)
    assert spooler["oldest_age"] > 0
    assert (spooler["done"], spooler["tasks"]) == (0, 0)
    go.touch()

    def is_last_left(document) -> bool:
        spooler = document["spoolers"][0]
        return (spooler["done"], spooler["tasks"], spooler["running"], spooler["queue"]) == (4, 4, 0, 1)

    spooler = jobs.server.wait_stats(is_last_left, "all are done but the last")["spoolers"][0]
    assert spooler["failed"] == 0 and "job" not in spooler


@only_rwsgi(why="uWSGI kills what runs")
def test_a_reload_lets_jobs_finish_and_new_ones_run_in_the_new_application(serve, tmp_path):
    source = (Path(__file__).parent / "apps" / "jobs.py").read_text()
    app = tmp_path / "deployed.py"
    app.write_text(source)
    jobs = spooling(serve, tmp_path, app=str(app))
    go = tmp_path / "go"
    jobs.queue(1, until=str(go))
    jobs.wait_begun(1)
    app.write_text(source.replace('VERSION = "one"', 'VERSION = "two"'))
    jobs.server.send(1)
    jobs.server.logged("generation 2 takes over")
    # The master answers when it has done what the line says: it has told the spooler to leave after its job.
    jobs.server.stats()
    jobs.queue(2)
    assert jobs.record.ended() == []
    go.touch()
    jobs.wait_ended(1, 2)
    assert [words[2] for words in jobs.record.lines("begin")] == ["one", "two"]


@only_rwsgi(why="uWSGI kills what runs")
def test_a_stop_lets_the_job_in_progress_finish_and_leaves_the_others(serve, tmp_path):
    jobs = spooling(serve, tmp_path)
    go = tmp_path / "go"
    jobs.queue(1, until=str(go))
    jobs.wait_begun(1)
    jobs.queue(2, 3)
    jobs.server.send(15)
    jobs.server.logged("SIGTERM: stopping")
    # The master answers when it has done what the line says: it has told the spooler to leave after its job.
    jobs.server.stats()
    go.touch()
    assert jobs.server.wait_exit() == 0
    assert jobs.record.ended() == [1]
    assert len(jobs.files()) == 2
    again = spooling(serve, tmp_path)
    again.wait_ended(1, 2, 3)
