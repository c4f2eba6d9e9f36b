"""A reload that is tried on a few workers, and kept or undone by what is asserted of it: no request is lost either way."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess

import pytest

from rig import http
from rig.addresses import tcp
from rig.load import Load
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI has no control socket")

GOOD = """
import time
VERSION = {version!r}
def application(environ, start_response):
    time.sleep({delay})
    {before}
    start_response("200 OK", [("Content-Length", str(len(VERSION)))])
    return [VERSION.encode()]
"""
NO_SLOWER = "p50 < 5 * previous_generation"
NO_WORSE = "error_rate <= previous_generation"


def source(version: str, delay: float = 0.001, before: str = "pass") -> str:
    return GOOD.format(version=version, delay=delay, before=before)


def any_version(answer) -> bool:
    return answer.status == 200 and answer.text in ("one", "two", "three")


class Deployed:
    """A server of an application that is rewritten on disk, and what is asked of it through its control socket."""

    def __init__(self, serve, program, directory, stats_at, *arguments, processes: int = 3, up: int | None = None) -> None:
        self.program = program.path
        self.file = directory / "deployed.py"
        self.control = directory / "server.ctl"
        self.write(source("one"))
        self.address = tcp()
        self.server = serve(
            *("--http", self.address, "--wsgi-file", "deployed.py", "--stats", stats_at, "--control", self.control),
            *("--processes", processes, "--threads", 2, *arguments),
            cwd=directory,
        )
        self.first = {worker["pid"] for worker in self.server.wait_workers(up or processes)["workers"] if worker["pid"]}

    def write(self, text: str) -> None:
        """Replaces the application's file at one stroke."""
        fresh = self.file.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self.file)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Starts `rwsgi ctl`."""
        command = [self.program, "ctl", "--control", str(self.control), *words]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/")

    def ctl(self, *words: str) -> tuple[int, str, str]:
        """Runs `rwsgi ctl`: its exit status, output and errors."""
        started = self.start(*words)
        out, err = started.communicate(timeout=120)
        return started.returncode, out, err

    def canary(self, *asserted: str, workers: int = 1, watch: str = "2s", more: tuple[str, ...] = ()) -> list[str]:
        """The words of a trial."""
        asserts = [part for text in asserted for part in ("--assert", text)]
        return ["reload", "--canary", str(workers), "--watch", watch, *asserts, *more]

    def pids(self) -> set[int]:
        """The processes of the workers."""
        return {worker["pid"] for worker in self.server.stats()["workers"]}

    def ask(self, **request: object) -> dict:
        """One answer of the control socket, without `rwsgi ctl`."""
        from rig.addresses import connect

        with connect(str(self.control)) as connection:
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as lines:
                for line in lines:
                    answer = json.loads(line)
                    if "progress" not in answer:
                        return answer
        raise AssertionError("hung up without an answer")

    def serving(self) -> list[int]:
        """The generation of each worker that accepts."""
        return sorted(worker["generation"] for worker in self.server.stats()["workers"] if worker["accepting"])

    def states(self) -> dict[int, str]:
        """What has become of each generation."""
        return {told["generation"]: told["state"] for told in self.server.stats()["generations"]}

    def generation(self, number: int) -> dict:
        return next(told for told in self.server.stats()["generations"] if told["generation"] == number)

    def wait_serving(self, generations: list[int]) -> None:
        """Waits until the workers are of these generations, and no other process of a worker is left."""

        def settled() -> bool:
            told = {one["generation"]: one["workers"] for one in self.server.stats()["generations"]}
            return self.serving() == generations and sum(told.values()) == len(generations)

        until(settled, f"workers of {generations}", context=lambda: f"{self.server.stats()['generations']}\n{self.server.log()}")

    def wait_tried(self) -> None:
        """Waits until the canary serves."""
        self.server.wait_stats(lambda told: told.get("canary", {}).get("started_at"), "a canary that serves")

    def watches(self) -> int:
        """How many files and directories the master watches."""
        directory = f"/proc/{self.server.pid}/fd"
        found = 0
        for name in os.listdir(directory):
            with contextlib.suppress(FileNotFoundError):  # It was closed meanwhile.
                found += os.readlink(f"{directory}/{name}") == "anon_inode:inotify"
        return found

    def wait_watches(self, count: int) -> None:
        """Waits until the master watches so many files and directories."""
        until(lambda: self.watches() == count, f"{count} watched files", context=lambda: str(self.watches()))

    def fork_server(self, generation: int) -> int:
        return int(self.server.logged(rf"generation {generation} \(pid (\d+)\): loaded")[-1].group(1))


@pytest.fixture(params=[[], ["--lazy-apps"]], ids=["preloaded", "lazy"])
def deployed(serve, program, tmp_path, stats_at, request):
    return Deployed(serve, program, tmp_path, stats_at, *request.param)


@pytest.fixture
def plain(serve, program, tmp_path, stats_at):
    return Deployed(serve, program, tmp_path, stats_at)


def test_a_good_deploy_is_kept(deployed):
    with Load(deployed.address, clients=8, keep_alive=True, expect=any_version) as load:
        load.wait_good(100)
        deployed.write(source("two"))
        status, out, err = deployed.ctl(*deployed.canary(NO_SLOWER, NO_WORSE))
        assert status == 0, out + err
        deployed.wait_serving([2, 2, 2])
        load.wait_good(100)
    assert not load.lost
    assert http.get(deployed.address, "/").text == "two"
    assert deployed.states() == {2: "serving", 1: "past"}
    # Both were watched beside each other, and what was judged is told.
    assert "generation 2 (1 worker): " in out and "generation 1 (2 workers): " in out, out
    assert [line.split()[-1] for line in out.splitlines() if line.startswith(("p50 <", "error_rate <="))] == ["pass", "pass"]
    document = deployed.server.stats()
    assert "canary" not in document
    assert [[route["route"] for route in one["routes"]] for one in document["generations"]] == [["/"], ["/"]]
    assert all(one["routes"][0]["requests"] == one["requests"] for one in document["generations"])
    assert sum(one["requests"] for one in document["generations"]) == sum(one["requests"] for one in document["workers"])


def test_a_deploy_that_is_slow_is_undone(deployed):
    with Load(deployed.address, clients=8, keep_alive=True, expect=any_version) as load:
        load.wait_good(100)
        # So slow that it is so in whatever time a busy machine takes for the other.
        deployed.write(source("two", delay=0.2))
        status, out, err = deployed.ctl(*deployed.canary(NO_SLOWER, watch="60s"))
        assert status == 1, out + err
        deployed.wait_serving([1, 1, 1])
        load.wait_good(100)
    assert not load.lost
    assert {http.get(deployed.address, "/").text for _ in range(50)} == {"one"}
    assert deployed.states() == {2: "undone", 1: "serving"}
    assert "FAIL" in out
    # The fork server of the one that was undone is gone.
    until(lambda: deployed.fork_server(2) not in {one.pid for one in deployed.server.processes()}, "its fork server gone")


@pytest.mark.parametrize("workers", [1, 2])
def test_with_lazy_apps_the_processes_of_the_old_code_are_kept_until_it_is_decided(serve, program, tmp_path, stats_at, workers):
    deployed = Deployed(serve, program, tmp_path, stats_at, "--lazy-apps")
    with Load(deployed.address, clients=8, keep_alive=True, expect=any_version) as load:
        deployed.write(source("two"))
        assert "done" in deployed.ask(**{"do": "canary", "workers": workers, "seconds": 60})
        assert deployed.serving() == [1] * (3 - workers) + [2] * workers
        assert (deployed.generation(1)["workers"], deployed.generation(2)["workers"]) == (3 - workers, workers)
        assert deployed.first <= {one.pid for one in deployed.server.processes()}
        # One of the canary's that is recycled changes nothing of that.
        new = next(one for one in deployed.server.stats()["workers"] if one["generation"] == 2)
        assert "done" in deployed.ask(**{"do": "recycle", "worker": new["id"]})
        until(lambda: new["pid"] not in {one.pid for one in deployed.server.processes()}, "it is recycled")
        assert "done" in deployed.ask(**{"do": "canary-undo"})
        deployed.wait_serving([1, 1, 1])
        assert deployed.pids() == deployed.first
        assert {http.get(deployed.address, "/").text for _ in range(50)} == {"one"}
        # They leave when the next one is kept.
        assert "done" in deployed.ask(**{"do": "canary", "workers": workers, "seconds": 60})
        assert "done" in deployed.ask(**{"do": "canary-keep"})
        deployed.wait_serving([3, 3, 3])
        until(lambda: not deployed.first & {one.pid for one in deployed.server.processes()}, "the old ones gone")
        load.wait_good(50)
    assert not load.lost


def test_a_deploy_that_raises_is_undone_and_what_it_raised_is_told(plain):
    with Load(plain.address, clients=8, keep_alive=True, expect=lambda answer: answer.status in (200, 500)) as load:
        load.wait_good(100)
        plain.write(source("two", before="raise ValueError('broken')"))
        status, out, err = plain.ctl(*plain.canary("exceptions == 0", watch="60s", more=("--json",)))
        assert status == 1, out + err
        plain.wait_serving([1, 1, 1])
        load.wait_good(100)
    assert not load.lost
    verdict = json.loads(out)
    assert (verdict["kept"], verdict["exit"], verdict["generation"]) == (False, 1, 2)
    assert verdict["assertions"][0]["result"] == "FAIL" and verdict["assertions"][0]["actual"] > 0
    undone, serving = plain.generation(2), plain.generation(1)
    assert undone["state"] == "undone"
    assert undone["errors"] == [{"type": "ValueError", "count": undone["exceptions"]}]
    assert undone["exceptions"] == undone["requests"] == undone["responses"]["5xx"] > 0
    assert (serving["errors"], serving["exceptions"]) == ([], 0)


@pytest.mark.parametrize("broken", ["raise RuntimeError('broken deploy')\n", "def application(:\n"], ids=["raises", "syntax"])
def test_a_deploy_that_does_not_load_changes_nothing(deployed, broken):
    with Load(deployed.address, clients=4, keep_alive=True, expect=any_version) as load:
        load.wait_good(50)
        deployed.write(broken)
        status, out, err = deployed.ctl(*deployed.canary(NO_SLOWER))
        assert status == 1, out + err
        deployed.server.logged(r"canary: generation 2 is undone.*generation 1 goes on")
        deployed.wait_serving([1, 1, 1])
        load.wait_good(100)
    assert not load.lost
    assert "undone" in err
    assert "canary" not in deployed.server.stats()
    # Nor are the workers replaced: with lazy-apps nothing could load what there is now.
    assert deployed.pids() == deployed.first


def test_a_client_that_is_killed_undoes_its_deploy(plain):
    with Load(plain.address, clients=8, keep_alive=True, expect=any_version) as load:
        load.wait_good(50)
        plain.write(source("two"))
        # Long enough to be killed before it decides.
        client = plain.start(*plain.canary(NO_SLOWER, watch="5s"))
        plain.wait_tried()
        client.kill()
        client.communicate()
        plain.server.logged(r"canary: generation 2 is undone.*nobody has kept it within 10 s")
        plain.wait_serving([1, 1, 1])
        load.wait_good(50)
    assert not load.lost
    assert plain.states() == {2: "undone", 1: "serving"}


@pytest.mark.parametrize("when", ["loading", "tried"])
def test_ctrl_c_undoes_the_deploy(plain, when):
    plain.write(source("two") if when == "tried" else "import time\ntime.sleep(3)\n" + source("two"))
    client = plain.start(*plain.canary(NO_SLOWER, watch="60s"))
    if when == "tried":
        plain.wait_tried()
    else:
        plain.server.wait_stats(lambda told: "canary" in told, "a canary that is loaded")
    client.send_signal(signal.SIGINT)
    _, err = client.communicate(timeout=60)
    assert client.returncode == 1
    assert "generation 2 is undone" in err, err
    plain.wait_serving([1, 1, 1])
    assert "canary" not in plain.server.stats()


def test_without_requests_it_is_undone_unless_it_is_said_otherwise(plain):
    plain.write(source("two"))
    status, out, err = plain.ctl(*plain.canary(NO_SLOWER, watch="1s"))
    assert status == 4, out + err
    assert "not enough requests to tell" in out
    plain.wait_serving([1, 1, 1])
    status, out, err = plain.ctl(*plain.canary(NO_SLOWER, watch="1s", more=("--keep-if-idle",)))
    assert status == 0, out + err
    plain.wait_serving([3, 3, 3])


def test_a_canary_s_worker_that_dies_undoes_it(plain):
    plain.write(source("two"))
    client = plain.start(*plain.canary(NO_SLOWER, watch="60s"))
    plain.wait_tried()
    worker = next(one for one in plain.server.stats()["workers"] if one["generation"] == 2)
    os.kill(worker["pid"], signal.SIGKILL)
    _, err = client.communicate(timeout=60)
    assert client.returncode == 1 and "undone" in err, err
    plain.server.logged(rf"canary: generation 2 is undone: its worker {worker['id']} \(pid {worker['pid']}\) died")
    plain.wait_serving([1, 1, 1])


def test_a_worker_that_dies_meanwhile_gets_its_own_generation_again(plain):
    plain.write(source("two"))
    assert "done" in plain.ask(**{"do": "canary", "workers": 1, "seconds": 60})
    plain.wait_serving([1, 1, 2])
    old = next(one for one in plain.server.stats()["workers"] if one["generation"] == 1)
    # One that dies in its first second is replaced a second later.
    until(lambda: plain.server.stats()["now"] / 1e6 > old["last_spawn"] + 2, "it is older than a second")
    os.kill(old["pid"], signal.SIGKILL)
    until(lambda: old["pid"] not in {one["pid"] for one in plain.server.stats()["workers"]}, "it is gone")
    plain.wait_serving([1, 1, 2])
    # And one of the canary's that is recycled keeps its own.
    new = next(one for one in plain.server.stats()["workers"] if one["generation"] == 2)
    assert "done" in plain.ask(**{"do": "recycle", "worker": new["id"]})
    plain.wait_serving([1, 1, 2])
    assert "done" in plain.ask(**{"do": "canary-keep"})
    plain.wait_serving([2, 2, 2])


def test_max_requests_replaces_each_by_its_own_generation(serve, program, tmp_path, stats_at):
    deployed = Deployed(serve, program, tmp_path, stats_at, "--max-requests", 50)
    with Load(deployed.address, clients=8, keep_alive=True, expect=any_version) as load:
        deployed.write(source("two"))
        assert "done" in deployed.ask(**{"do": "canary", "workers": 1, "seconds": 60})
        # Some of each.
        deployed.server.logged(r"max-requests: replacing it", count=12)
        until(lambda: deployed.serving() == [1, 1, 2], "their own generations", context=deployed.server.log)
        assert "done" in deployed.ask(**{"do": "canary-undo"})
        until(lambda: deployed.serving() == [1, 1, 1], "the one before", context=deployed.server.log)
    assert not load.lost


def test_a_reload_undoes_the_canary_and_is_for_all(plain):
    with Load(plain.address, clients=8, keep_alive=True, expect=any_version) as load:
        load.wait_good(50)
        plain.write(source("two"))
        assert "done" in plain.ask(**{"do": "canary", "workers": 1, "seconds": 60})
        plain.write(source("three"))
        plain.server.send(signal.SIGHUP)
        plain.wait_serving([3, 3, 3])
        load.wait_good(50)
    assert not load.lost
    assert plain.states() == {3: "serving", 2: "undone", 1: "past"}
    assert "failed" in plain.ask(**{"do": "canary-keep"})


def test_after_a_brutal_reload_a_canary_still_gives_requests_their_time(serve, program, tmp_path, stats_at):
    deployed = Deployed(serve, program, tmp_path, stats_at)
    assert "done" in deployed.ask(**{"do": "reload", "how": "brutal"})
    deployed.wait_serving([2, 2, 2])
    deployed.write(source("two", delay=0.5))
    assert "done" in deployed.ask(**{"do": "reload", "how": "brutal"})
    deployed.wait_serving([3, 3, 3])
    with Load(deployed.address, clients=6, keep_alive=True, expect=any_version) as load:
        load.wait_good(6)
        assert "done" in deployed.ask(**{"do": "canary", "workers": 2, "seconds": 60})
        deployed.wait_serving([3, 4, 4])
        assert "done" in deployed.ask(**{"do": "canary-undo"})
        deployed.wait_serving([3, 3, 3])
        load.wait_good(6)
    assert not load.lost


@pytest.mark.parametrize("broken", ["", "raise RuntimeError('broken')\n"], ids=["undone", "not loaded"])
def test_what_an_undone_generation_has_registered_goes_with_it(plain, tmp_path, broken):
    watched = tmp_path / "watched"
    watched.touch()
    monitor = f"import uwsgi\nuwsgi.register_signal(17, 'worker', print)\nuwsgi.add_file_monitor(17, {str(watched)!r})\n"
    plain.write(monitor + broken + source("two"))
    before = plain.watches()
    for _ in range(3):
        reply = plain.ask(**{"do": "canary", "workers": 1, "seconds": 60})
        if not broken:
            assert "done" in reply
            plain.wait_watches(before + 1)
            assert "done" in plain.ask(**{"do": "canary-undo"})
        plain.wait_serving([1, 1, 1])
    plain.wait_watches(before)
    if broken:
        assert "failed" in plain.ask(**{"do": "reload"})
        plain.wait_watches(before)
    watched.write_text("changed")
    assert plain.server.stats()["signal_queue"] == 0


@pytest.mark.parametrize("when", ["loading", "tried"])
def test_a_stop_ends_a_canary_with_all_others(plain, when):
    plain.write(source("two") if when == "tried" else "import time\ntime.sleep(30)\n" + source("two"))
    client = plain.start(*plain.canary(NO_SLOWER, watch="60s"))
    if when == "tried":
        plain.wait_tried()
    else:
        plain.server.wait_stats(lambda told: "canary" in told, "a canary that is loaded")
    plain.server.send(signal.SIGTERM)
    assert plain.server.wait_exit() == 0
    plain.server.wait_gone()
    client.communicate(timeout=60)
    assert client.returncode == 1


@pytest.mark.parametrize("then", ["canary-keep", "canary-undo"])
def test_the_end_of_the_other_fork_server_does_not_end_the_canary(plain, then):
    plain.write(source("two"))
    assert "done" in plain.ask(**{"do": "canary", "workers": 1, "seconds": 60})
    with Load(plain.address, clients=4, keep_alive=True, expect=any_version) as load:
        os.kill(plain.fork_server(1), signal.SIGKILL)
        plain.server.logged(r"fork server of generation 1 .* died")
        load.wait_good(50)
        plain.wait_serving([1, 1, 2])
        plain.write(source("three"))
        assert "done" in plain.ask(**{"do": then})
        # Undone, it is loaded again as its files are now.
        plain.wait_serving([2, 2, 2] if then == "canary-keep" else [3, 3, 3])
    assert not load.lost


def test_the_end_of_its_own_fork_server_undoes_it(plain):
    plain.write(source("two"))
    assert "done" in plain.ask(**{"do": "canary", "workers": 2, "seconds": 60})
    os.kill(plain.fork_server(2), signal.SIGKILL)
    plain.server.logged(r"canary: generation 2 is undone.*fork server died")
    plain.wait_serving([1, 1, 1])


def test_what_cannot_be_tried_is_refused_with_a_reason(plain):
    for request, told in [
        ({"do": "canary", "workers": 3, "seconds": 30}, "1 to 2"),
        ({"do": "canary", "workers": 0, "seconds": 30}, "1 to 2"),
        ({"do": "canary", "workers": 1, "seconds": 0}, "expected 1 s"),
        ({"do": "canary-keep"}, "none to keep"),
        ({"do": "canary-undo"}, "none to undo"),
    ]:
        answer = plain.ask(**request)
        assert told in answer["failed"], answer
    assert "done" in plain.ask(**{"do": "canary", "workers": 1, "seconds": 60})
    assert "generation 2 is tried" in plain.ask(**{"do": "canary", "workers": 1, "seconds": 60})["failed"]
    assert "is tried" in plain.ask(**{"do": "workers", "count": 1})["failed"]
    assert "done" in plain.ask(**{"do": "canary-undo"})
    plain.wait_serving([1, 1, 1])
    assert "generation 1" in plain.server.logged(r"canary: generation 2 is undone.*")[0].group()


def test_with_cheaper_a_worker_is_started_that_it_is_compared_with(serve, program, tmp_path, stats_at):
    deployed = Deployed(serve, program, tmp_path, stats_at, "--cheaper", 1, processes=4, up=1)
    deployed.write(source("two"))
    assert "done" in deployed.ask(**{"do": "canary", "workers": 1, "seconds": 60})
    deployed.wait_serving([1, 2])
    assert "done" in deployed.ask(**{"do": "canary-keep"})
    until(lambda: set(deployed.serving()) == {2}, "all of generation 2", context=deployed.server.log)


def test_one_worker_alone_has_nothing_to_be_compared_with(serve, program, tmp_path, stats_at):
    deployed = Deployed(serve, program, tmp_path, stats_at, processes=1)
    status, _, err = deployed.ctl(*deployed.canary(NO_SLOWER))
    assert status == 1 and "processes" in err, err


def test_rtop_sets_the_generation_that_serves_beside_the_one_before(plain, rtop, terminal):
    with Load(plain.address, clients=8, keep_alive=True, expect=any_version) as load:
        load.wait_good(500)
        plain.write(source("two", delay=0.1))
        assert "done" in plain.ask(**{"do": "reload"})
        load.wait_good(200)
        screen = terminal([rtop, plain.server.stats_address])
        until(lambda: "gen 2" in screen.screen(), "the server on the screen", context=screen.screen)
        screen.press("g")

        def told() -> bool:
            rows = [line for line in screen.screen().splitlines() if " p50 " in line]
            return any("worse" in row for row in rows)

        until(told, "a median that got worse", context=screen.screen)
        assert "generation 1 (past)" in screen.screen()
        screen.press("g")
        until(lambda: "did it get worse" not in screen.screen(), "it is closed", context=screen.screen)
        screen.press("q")
        screen.wait_left()
    assert not load.lost


def test_rtop_holds_the_generation_that_serves_against_the_one_before(plain, rtop):
    def judged(text: str) -> subprocess.CompletedProcess[str]:
        command = [rtop, plain.server.stats_address, "--for", "1s", "--assert", text]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    nothing = judged(NO_SLOWER)
    assert nothing.returncode == 2 and "no generation before" in nothing.stdout, nothing
    with Load(plain.address, clients=8, keep_alive=True, expect=any_version) as load:
        load.wait_good(500)
        plain.write(source("two", delay=0.1))
        assert "done" in plain.ask(**{"do": "reload"})
        load.wait_good(200)
        slow = judged(NO_SLOWER)
        assert slow.returncode == 1 and "FAIL" in slow.stdout, slow
        fine = judged("error_rate <= previous_generation")
        assert fine.returncode == 0 and "pass" in fine.stdout, fine
    assert not load.lost
