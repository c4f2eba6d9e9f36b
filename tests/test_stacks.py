"""What the threads of workers execute, live and sampled, whatever they are stuck in."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sysconfig
import threading
from collections import Counter
from contextlib import contextmanager

import pytest

from rig import http, processes
from rig.addresses import tcp
from rig.control import Control, ask
from rig.server import APPS, Servers, environment
from rig.waiting import DEADLINE, until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI does not tell what its threads execute")

LINES = (APPS / "stuck.py").read_text().splitlines()


def line_of(mark: str) -> int:
    [number] = [number for number, line in enumerate(LINES, 1) if line.endswith(f"# here: {mark}")]
    return number


class Site:
    """A server with the application `stuck.py`."""

    def __init__(self, serve, tmp_path, *arguments: object) -> None:
        self.address, self.control, self.go = tcp(), tmp_path / "control.sock", tmp_path / "go"
        self.server = serve(
            "--http-socket", self.address, "--wsgi-file", "stuck.py", "--control", self.control, *arguments
        )

    @contextmanager
    def stuck(self, *kinds: str):
        """Requests that are stuck in these ways."""
        connections = []
        try:
            for kind in kinds:
                connection = http.Connection(self.address)
                connection.send(http.head("GET", f"/{kind}?go={self.go}", {"Connection": "close"}))
                connections.append(connection)
            yield connections
            self.go.touch()
            for connection in connections:
                assert connection.response().status == 200
        finally:
            self.go.touch()
            for connection in connections:
                connection.close()

    def stacks(self, worker: int | None = None) -> list[dict]:
        """All threads."""
        reply = ask(self.control, "stacks", **({"worker": worker} if worker else {}))
        assert "done" in reply, reply
        return reply["done"]["stacks"]["threads"]

    def of(self, kind: str) -> dict:
        """The thread with a request of this kind, once it has frames."""

        def found() -> dict | None:
            stacks = [stack for stack in self.stacks() if stack["request"].startswith(f"GET /{kind}?")]
            stacks = [stack for stack in stacks if any(is_in(frame, kind) for frame in stack["frames"])]
            return stacks[0] if stacks else None

        return until(found, f"a stack of /{kind}", context=lambda: f"{self.stacks()}\n{self.server.log()}")

    def profile(self, seconds: float, rate: int = 200) -> dict:
        """A profile."""
        reply = ask(self.control, "profile", seconds=seconds, rate=rate)
        assert "done" in reply, reply
        return reply["done"]["profile"]


def is_in(frame: dict, kind: str) -> bool:
    return frame["function"].split(".")[-1] == kind and frame["file"].endswith("stuck.py")


def is_at(stack: dict, kind: str) -> bool:
    """Whether the thread is at the line that this kind is stuck at, of which a part may be in other files."""
    inner = next((frame for frame in stack["frames"] if frame["file"].endswith("stuck.py")), None)
    return inner is not None and is_in(inner, kind) and inner["line"] == line_of(kind)


@pytest.fixture
def site(serve, tmp_path):
    """Starts a site: `site("--threads", 2)`."""
    return lambda *arguments: Site(serve, tmp_path, *arguments)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("kind", "state"), [("sleep", "waiting"), ("lock", "lock"), ("hog", "running"), ("receive", "waiting")]
)
def test_a_stuck_thread_tells_its_line_its_request_and_what_it_waits_for(site, threads, kind, state):
    site = site("--threads", threads)
    with site.stuck(kind):
        # Now and then it looks whether it is over.
        stack = until(
            lambda: next((stack for stack in [site.of(kind)] if stack["state"] == state and is_at(stack, kind)), None),
            f"the state {state} at its line",
            context=lambda: str(site.of(kind)),
        )
    assert stack["problem"] == ""
    assert stack["request"] == f"GET /{kind}?go=…"
    assert stack["elapsed"] > 0 and stack["worker"] == 1 and stack["core"] is not None
    inner, outer = [frame for frame in stack["frames"] if frame["file"].endswith("stuck.py")][:2]
    assert (inner["function"].split(".")[-1], outer["function"]) == (kind, "application")
    assert inner["line"] == line_of(kind)
    assert stack["frames"][-1] == outer, "frames of the server's own are left out"


@pytest.mark.skipif(bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="this Python has no global lock to wait for")
def test_threads_that_want_the_global_lock_say_so(site):
    site = site("--threads", 3)
    with site.stuck("hog", "spin"):
        site.of("hog")
        # It may wait before it is in its function, too.
        until(lambda: site.of("spin")["state"] == "gil", "a thread waits for the global lock", context=lambda: str(site.stacks()))


def test_all_workers_and_threads_are_told_and_idle_ones_as_idle(site):
    site = site("--processes", 2, "--threads", 3)
    expected = ("waiting", [], "", "it is in no Python code")

    def all_are_idle() -> list[dict]:
        stacks = site.stacks()
        told = [tuple(stack[key] for key in ("state", "frames", "request", "problem")) for stack in stacks]
        return stacks if told == [expected] * 6 else []

    # Each says something else while it begins.
    stacks = until(all_are_idle, "six threads that are idle", context=lambda: str(site.stacks()))
    assert [(stack["worker"], stack["core"]) for stack in stacks] == [(w, c) for w in (1, 2) for c in (0, 1, 2)]
    assert {stack["worker"] for stack in site.stacks(worker=2)} == {2}
    assert "there is no such worker" in ask(site.control, "stacks", worker=3)["failed"]


def in_background(stack) -> bool:
    """Whether this is a thread of the application that has come as far as it goes: at first it is still being started."""
    return [(frame["function"], frame["line"]) for frame in stack["frames"][:1]] == [("background", line_of("background"))]


def test_threads_of_the_application_are_told_behind_the_worker_s_own(site):
    site = site()
    with site.stuck("threads"):
        guests = until(
            lambda: (found := [s for s in site.stacks() if s["core"] is None and in_background(s)]) and len(found) == 3 and found,
            "three threads of the application in their function",
            context=lambda: str(site.stacks()),
        )
        for guest in guests:
            assert guest["frames"][-1]["function"].endswith("_bootstrap")
        again = [stack for stack in site.stacks() if stack["core"] is None]
        assert [stack["tid"] for stack in again] == [stack["tid"] for stack in guests]


def test_threads_of_the_application_are_told_after_a_profile_whatever_threads_there_were_before(site):
    site = site()

    def guests(count: int) -> None:
        until(
            lambda: len([s for s in site.stacks() if s["core"] is None and s["frames"]]) == count,
            f"{count} threads of the application",
            context=lambda: str([(s["tid"], s["problem"]) for s in site.stacks()]),
        )

    with site.stuck("crowd"):
        guests(128)
        site.profile(0.2)
    until(lambda: len(site.stacks()) == 1, "they have ended")
    site.go.unlink()
    with site.stuck("threads"):
        guests(3)


def test_a_second_interpreter_makes_no_waiting_thread_a_running_one(site):
    site = site("--threads", 2)
    with site.stuck("interpreters"):
        until(lambda: site.of("interpreters")["state"] == "waiting", "it waits", context=lambda: str(site.stacks()))
        until(
            lambda: [stack["state"] for stack in site.stacks() if not stack["request"]] == ["waiting"], "the other one waits",
            context=lambda: str(site.stacks()),
        )


def test_of_a_deep_stack_the_innermost_frames_are_kept(site):
    site = site()
    with site.stuck("deep"):
        stack = until(
            lambda: (stack := site.of("deep")) and is_at(stack, "sleep") and stack, "it sleeps", context=lambda: str(site.stacks())
        )
    assert len(stack["frames"]) == 100


def test_a_stopped_worker_is_told_as_stopped_and_answers_when_it_goes_on(site):
    site = site()
    with site.stuck("sleep"):
        pid = site.of("sleep")["pid"]
        os.kill(pid, signal.SIGSTOP)
        [stack] = until(
            lambda: [s for s in site.stacks() if "stopped" in s["problem"]], "it is stopped", context=lambda: str(site.stacks())
        )
        assert stack["request"] == "GET /sleep?go=…" and stack["frames"] == []
        os.kill(pid, signal.SIGCONT)
        assert site.of("sleep")["pid"] == pid


@pytest.mark.parametrize(("kind", "problem"), [("take", "taken away the handler"), ("own", "handler of its own")])
def test_an_application_that_takes_the_signal_is_told_so_and_not_ended(site, kind, problem):
    site = site()
    with site.stuck(kind):
        [stack] = until(
            lambda: [s for s in site.stacks() if problem in s["problem"]], problem, context=lambda: str(site.stacks())
        )
        assert stack["frames"] == []
        profile = site.profile(0.2)
        assert profile["samples"] == 0 and profile["missed"] > 0
        assert processes.alive(stack["pid"])


def test_a_child_that_the_application_forks_is_left_alone(site):
    site = site()
    with site.stuck("fork"):
        stack = site.of("fork")
        for _ in range(5):
            assert {stack["pid"] for stack in site.stacks()} == {stack["pid"]}


def test_another_user_s_server_answers_without_rights_to_trace(program_for_all, tmp_path):
    from rig import other_user

    place = other_user.place()
    os.chmod(place, 0o777)
    (place / "stuck.py").write_text("\n".join(LINES) + "\n")
    servers = Servers(program_for_all, tmp_path)
    try:
        site = Site.__new__(Site)
        site.address, site.control, site.go = tcp(), place / "control.sock", place / "go"
        site.server = servers(
            "--http-socket", site.address, "--wsgi-file", "stuck.py", "--control", site.control,
            "--uid", "www-data", "--gid", "www-data", cwd=place,
        )
        with site.stuck("hog"):
            stack = until(
                lambda: (stack := site.of("hog")) and stack["state"] == "running" and stack, "it runs", context=site.server.log
            )
            assert os.stat(f"/proc/{stack['pid']}").st_uid == other_user.www_data().pw_uid
    finally:
        servers.stop_all()


def test_the_command_line_and_the_fifo_print_what_is_executed(site, program, tmp_path):
    pidfile, fifo = tmp_path / "pid", tmp_path / "fifo"
    site = site("--pidfile", pidfile, "--master-fifo", fifo)
    with site.stuck("sleep"):
        site.of("sleep")
        command = [program.path, "--stacks", str(site.control)]
        run = subprocess.run(command, env=environment("stacks"), capture_output=True, text=True, timeout=DEADLINE, check=True)
        for text in ["worker 1 (pid ", "thread 0", "GET /sleep?go=…", f"Stuck.sleep ({APPS / 'stuck.py'}:"]:
            assert text.removeprefix("Stuck.") in run.stdout or text in run.stdout, run.stdout
        assert re.search(r"GET /sleep\?go=… \(route /sleep\) for \d+\.\d{3} s$", run.stdout, re.MULTILINE), run.stdout
        with fifo.open("w") as letters:
            letters.write("t")
        site.server.logged(r"sleep \(.*stuck\.py:\d+\)")
        site.server.logged(r"GET /sleep\?go=… \(route /sleep\) for \d")


def shares(profile: dict) -> tuple[Counter, int]:
    """Of each innermost function, how often it was seen."""
    seen: Counter = Counter()
    for stack in profile["stacks"]:
        seen[profile["frames"][stack["frames"][-1]]["function"]] += stack["count"]
    return seen, sum(seen.values())


def test_a_profile_tells_the_shares_of_a_program_whose_shares_are_known(site):
    site = site()
    with site.stuck("spin"):
        site.of("spin")
        profile = site.profile(3, rate=500)
    seen, total = shares(profile)
    assert total == profile["samples"] > 0
    assert 2_900_000 < profile["micros"] <= 3_100_000 and profile["rate"] == 500
    # The work is 3 to 1; sampled with the global lock alone one of the two would have nearly all.
    ratio = seen["heavy"] / (seen["heavy"] + seen["light"])
    assert 0.68 < ratio < 0.82, seen
    outermost = {profile["frames"][stack["frames"][0]]["function"] for stack in profile["stacks"]}
    assert outermost <= {"application", "(server)"}
    loops = [s for s in profile["stacks"] if profile["frames"][s["frames"][-1]]["function"] in ("heavy", "light")]
    assert {stack["state"] for stack in loops} == {"running"}


def test_of_each_tick_of_a_profile_it_is_told_whether_it_was_missed(site):
    site = site()
    with site.stuck("sleep"):
        site.of("sleep")
        profile = site.profile(2, rate=1000)
    assert 1_800 < profile["samples"] + profile["missed"] < 2_200, (profile["samples"], profile["missed"])


def test_a_thread_that_blocks_the_signal_now_and_then_is_profiled(site):
    site = site()
    with site.stuck("blink"):
        until(lambda: [s for s in site.stacks() if s["request"]], "it serves", context=lambda: str(site.stacks()))
        profile = site.profile(2, rate=50)
    assert profile["samples"] > profile["missed"], (profile["samples"], profile["missed"])


def test_a_profile_tells_waiting_apart_says_how_far_it_is_and_is_one_at_a_time(site):
    site = site("--threads", 4)
    with site.stuck("sleep", "lock"):
        site.of("sleep"), site.of("lock")
        with Control(site.control) as control:
            control.send(b'{"do":"profile","seconds":600,"rate":100}\n')
            first = next(control.replies())["progress"]
            assert re.match(r"\d+ of 600 s: \d+ samples, \d+ missed$", first), first
            assert "being taken already" in ask(site.control, "profile", seconds=1)["failed"]
        # It ends when who has asked for it has gone.
        reply = until(
            lambda: (reply := ask(site.control, "profile", seconds=1.5, rate=100)) and "done" in reply and reply, "another profile"
        )
        profile = reply["done"]["profile"]
    states = Counter()
    for stack in profile["stacks"]:
        names = [profile["frames"][place]["function"].split(".")[-1] for place in stack["frames"]]
        states[names[-1] if names[-1] != "is_over" else "", stack["state"]] += stack["count"]
    assert states["sleep", "waiting"] > 0 and states["lock", "lock"] > 0, states
    for bad in ({"seconds": 0}, {"seconds": 601}, {"seconds": 1, "rate": 0}, {"seconds": 1, "rate": 1001}):
        assert "failed" in ask(site.control, "profile", **bad)


def test_a_worker_that_dies_while_it_is_profiled_ends_neither_the_profile_nor_the_server(site):
    site = site("--processes", 2)
    with Control(site.control) as control:
        connection = http.Connection(site.address)
        connection.send(http.head("GET", f"/sleep?go={site.go}", {"Connection": "close"}))
        pid = site.of("sleep")["pid"]
        control.send(b'{"do":"profile","seconds":2.5,"rate":1000}\n')
        replies = control.replies()
        assert "progress" in next(replies)
        os.kill(pid, signal.SIGKILL)
        profile = next(reply for reply in replies if "progress" not in reply)["done"]["profile"]
        connection.close()
    assert profile["samples"] > 0
    until(lambda: pid not in {s["pid"] for s in site.stacks()} and len(site.stacks()) == 2, "another worker serves")
    site.go.touch()
    assert http.get(site.address, "/").status == 200


def test_requests_are_answered_as_ever_while_they_are_profiled(site):
    site = site("--processes", 2, "--threads", 4)
    failures = []

    def load() -> None:
        for _ in range(200):
            answer = http.get(site.address, "/")
            if answer.status != 200:
                failures.append(answer.status)

    with Control(site.control) as control:
        control.send(b'{"do":"profile","seconds":3,"rate":1000}\n')
        clients = [threading.Thread(target=load) for _ in range(4)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        profile = next(reply for reply in control.replies() if "progress" not in reply)["done"]["profile"]
    assert not failures and "samples" in profile
    assert not site.server.lines("ERROR")
