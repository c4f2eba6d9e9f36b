"""refork: new workers are forked from a warmed one, and share what it has cached."""

from __future__ import annotations

import json
import os
import signal
import socket

import pytest

from rig import http, processes
from rig.addresses import tcp
from rig.http import Connection, head
from rig.load import Load
from rig.memory import ask
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI does not fork workers from workers")

WARM = 20000


class Site:
    """A server of `growing.py` with a control socket."""

    def __init__(self, serve, directory, stats_at, *arguments, kind="http-socket", count=3, env=None) -> None:
        self.address, self.control, self.count = tcp(), directory / "control", count
        self.server = serve(
            f"--{kind}", self.address, "--module", "growing", "--control", self.control, "--stats", stats_at,
            "--processes", count, *arguments, env=env,
        )
        self.server.wait_workers(count)

    def pids(self) -> dict[int, int]:
        return {worker["id"]: worker["pid"] for worker in self.server.stats()["workers"]}

    def warm(self) -> int:
        """Warms one worker's cache; returns which."""
        pid = int(http.get(self.address, "/warm").text.split()[0])
        return next(worker for worker, found in self.pids().items() if found == pid)

    def fork_servers(self) -> list[int]:
        return [process.pid for process in self.server.processes() if _comm(process.pid) == "rwsgi forksrv"]

    def refork(self, worker: int) -> str:
        reply, _ = ask(self.control, **{"do": "refork", "worker": worker})
        assert "done" in reply, (reply, self.server.log())
        return reply["done"]["text"]

    def refused(self, worker: int) -> str:
        reply, _ = ask(self.control, **{"do": "refork", "worker": worker})
        assert "failed" in reply, reply
        return reply["failed"]

    def wait_replaced(self, old: dict[int, int]) -> dict[int, int]:
        def replaced() -> dict[int, int] | None:
            workers = self.server.stats()["workers"]
            now = {worker["id"]: worker["pid"] for worker in workers if worker["accepting"]}
            left = {process.pid for process in self.server.processes()}
            return now if len(now) == self.count and not (left | set(now.values())) & set(old.values()) else None

        return until(replaced, "every worker replaced", context=self.server.log) or {}

    def caches(self) -> set[int]:
        """What all workers have in their caches, as enough requests tell."""
        seen: dict[int, int] = {}

        def all_seen() -> bool:
            # As many at once as there are workers, so that none can have two.
            connections = [Connection(self.address) for _ in range(self.count)]
            for connection in connections:
                connection.send(head("GET", "/sleep?0.3", {"Connection": "close"}))
            for connection in connections:
                pid, cached, _ = connection.response().text.split()
                seen[int(pid)] = int(cached)
                connection.close()
            return set(self.pids().values()) <= set(seen)

        until(all_seen, "an answer of every worker", context=lambda: str(seen))
        return {seen[pid] for pid in self.pids().values()}


def _comm(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except OSError:
        return ""


def test_every_worker_has_what_the_warmed_one_has_cached(serve, tmp_path, stats_at):
    site = Site(serve, tmp_path, stats_at)
    old, servers = site.pids(), site.fork_servers()
    worker = site.warm()
    assert "share its memory" in site.refork(worker)
    now = site.wait_replaced(old)
    assert not set(now.values()) & set(old.values())
    until(lambda: len(site.fork_servers()) == 1 and site.fork_servers() != servers, "one fork server, another one")
    assert site.caches() == {WARM}
    assert site.server.stats()["generation"] == 1
    # A worker that dies later is forked from it too.
    os.kill(now[1], signal.SIGKILL)
    until(lambda: site.pids()[1] not in (0, now[1]) and processes.alive(site.pids()[1]), "another worker 1")
    site.server.wait_workers(3)
    assert site.caches() == {WARM}


def test_a_worker_that_has_sent_streams_is_forked_from(serve, tmp_path, stats_at):
    """A thread of its own has a part in that, and is not there then."""
    site = Site(serve, tmp_path, stats_at, count=1)
    assert http.get(site.address, "/stream").body == b"x" * 100
    old = site.pids()
    site.refork(1)
    site.wait_replaced(old)
    assert http.get(site.address, "/stream").body == b"x" * 100


@pytest.mark.parametrize("kind", ["http", "http-socket"])
@pytest.mark.parametrize("keep_alive", [False, True], ids=["one-shot", "keep-alive"])
def test_no_request_is_lost_under_load(serve, tmp_path, stats_at, kind, keep_alive):
    site = Site(serve, tmp_path, stats_at, kind=kind)
    old = site.pids()
    with Load(site.address, clients=8, keep_alive=keep_alive) as load:
        load.wait_good(100)
        worker = site.warm()
        site.refork(worker)
        between = site.wait_replaced(old)
        # And once more, from one that was forked so.
        site.refork(worker)
        site.wait_replaced(between)
        load.wait_good(load.good + 100)
    assert not load.lost, (load.lost, site.server.log())
    assert site.caches() == {WARM}


def test_with_lazy_apps_the_application_is_shared_from_then_on(serve, tmp_path, stats_at):
    site = Site(serve, tmp_path, stats_at, "--lazy-apps")
    old = site.pids()
    site.refork(site.warm())
    site.wait_replaced(old)
    assert site.caches() == {WARM}


def test_a_reload_afterwards_begins_afresh(serve, tmp_path, stats_at):
    site = Site(serve, tmp_path, stats_at)
    old = site.pids()
    site.refork(site.warm())
    now = site.wait_replaced(old)
    site.server.send(signal.SIGHUP)
    site.wait_replaced(now)
    assert site.caches() == {0}
    assert site.server.stats()["generation"] == 2
    until(lambda: len(site.fork_servers()) == 1, "one fork server")


@pytest.mark.parametrize("undone", ["a canary", "a reload that does not load"])
def test_what_came_to_nothing_before_does_not_refuse_it(serve, tmp_path, stats_at, undone):
    switch = tmp_path / "broken"
    (tmp_path / "switched.py").write_text(
        f"import os\nassert not os.path.exists({str(switch)!r})\nfrom growing import application\n"
    )
    site = Site(serve, tmp_path, stats_at, "--pythonpath", tmp_path, "--module", "switched", count=2)
    if undone == "a canary":
        assert "done" in ask(site.control, **{"do": "canary", "workers": 1, "seconds": 60})[0]
        assert "generation 2 is tried" in site.refused(1)
        assert "done" in ask(site.control, **{"do": "canary-undo"})[0]
        until(lambda: len(site.fork_servers()) == 1, "the canary's fork server gone")
        site.server.wait_workers(2)
    else:
        switch.touch()
        assert "failed" in ask(site.control, **{"do": "reload"})[0]
    old = site.pids()
    site.refork(site.warm())
    site.wait_replaced(old)
    assert site.caches() == {WARM}


def test_fewer_workers_meanwhile_do_not_hold_it_up(serve, tmp_path, stats_at):
    gate = tmp_path / "gate"
    (tmp_path / "gated.py").write_text(
        "import os, time, uwsgi\nfrom growing import application\n"
        f"def wait():\n    while uwsgi.worker_id() == 2 and os.path.exists({str(gate)!r}):\n        time.sleep(0.01)\n"
        "uwsgi.post_fork_hook = wait\n"
    )
    site = Site(serve, tmp_path, stats_at, "--pythonpath", tmp_path, "--module", "gated", "--reload-mercy", 1)
    old = site.pids()
    gate.touch()
    site.refork(1)
    until(lambda: site.pids()[1] != old[1] and not processes.alive(old[1]), "worker 1 replaced, and worker 2 next")
    assert "done" in ask(site.control, **{"do": "workers", "count": 1})[0]
    # The process that was to follow worker 2 is killed before it serves.
    site.server.wait_stats(lambda told: [one["pid"] != 0 for one in told["workers"]] == [True, False, False], "one worker")
    until(lambda: "done" in ask(site.control, **{"do": "refork", "worker": 1})[0], "another refork")


def test_types_are_counted_anew_in_the_workers_that_come_of_it(serve, tmp_path, stats_at):
    site = Site(serve, tmp_path, stats_at, count=1)
    old = site.pids()
    for _ in range(2):
        reply, _ = ask(site.control, **{"do": "memory", "worker": 1, "what": "types"})
    assert "growth is since" in reply["done"]["memory"]["note"]
    site.refork(1)
    site.wait_replaced(old)
    reply, _ = ask(site.control, **{"do": "memory", "worker": 1, "what": "types"})
    # What its ancestor had counted is frozen, and would be told as gone.
    assert "ask again for the growth" in reply["done"]["memory"]["note"], reply


def test_an_application_with_signals_refuses(serve, tmp_path, stats_at):
    (tmp_path / "signalled.py").write_text(
        "import uwsgi\nfrom growing import application\nuwsgi.register_signal(17, 'worker', print)\n"
    )
    site = Site(serve, tmp_path, stats_at, "--pythonpath", tmp_path, "--module", "signalled", count=1)
    assert "uwsgi.register_signal" in site.refused(1)


def test_descriptors_do_not_add_up_however_often_it_is_done(serve, tmp_path, stats_at):
    site = Site(serve, tmp_path, stats_at, count=1)

    def descriptors() -> int:
        old = site.pids()
        site.refork(1)
        site.wait_replaced(old)
        (server,) = until(lambda: len(site.fork_servers()) == 1 and site.fork_servers(), "one fork server")
        return len(os.listdir(f"/proc/{server}/fd"))

    # The first one's are one fork server's and one worker's.
    first = [descriptors() for _ in range(2)][-1]
    assert [descriptors() for _ in range(2)] == [first, first]


def test_the_busiest_worker_is_chosen_where_none_is_named(serve, tmp_path, stats_at):
    site = Site(serve, tmp_path, stats_at, count=1)
    old = site.pids()
    site.warm()
    reply, _ = ask(site.control, **{"do": "refork"})
    assert "worker 1" in reply["done"]["text"]
    site.wait_replaced(old)
    assert site.caches() == {WARM}


def test_what_a_fork_would_not_take_along_refuses_it(serve, tmp_path, stats_at):
    site = Site(serve, tmp_path, stats_at, count=1)
    http.get(site.address, "/thread")
    old = site.pids()
    assert "refresher" in site.refused(1)
    assert site.pids() == old and http.get(site.address, "/").status == 200


def test_a_worker_of_several_threads_refuses(serve, tmp_path, stats_at):
    site = Site(serve, tmp_path, stats_at, "--threads", 2, count=1)
    assert "threads = 1" in site.refused(1)


@pytest.mark.parametrize("closes", [False, True], ids=["left open", "closed before"])
def test_a_connection_of_the_application_is_never_shared(serve, tmp_path, stats_at, closes):
    with socket.create_server(("127.0.0.1", 0)) as database:
        site = Site(serve, tmp_path, stats_at, count=1, env={"CLOSES": "1"} if closes else None)
        port = database.getsockname()[1]
        http.get(site.address, f"/connect?127.0.0.1:{port}")
        old = site.pids()
        if closes:
            site.refork(1)
            site.wait_replaced(old)
        else:
            refusal = site.refused(1)
            assert f"127.0.0.1:{port}" in refusal and "uwsgi.before_refork" in refusal
            assert site.pids() == old


def test_its_end_before_it_serves_changes_nothing(serve, tmp_path, stats_at):
    # It dies in the collection of garbage with which it begins.
    (tmp_path / "dying.py").write_text(
        "import gc, os, growing\n"
        "from growing import application\n"
        "def die(phase, info):\n"
        "    if phase == 'start' and open('/proc/self/comm').read() == 'rwsgi forksrv\\n':\n"
        "        os.kill(os.getpid(), 9)\n"
        "import uwsgi\n"
        "uwsgi.post_fork_hook = lambda: gc.callbacks.append(die)\n"
    )
    site = Site(serve, tmp_path, stats_at, "--pythonpath", tmp_path, "--module", "dying", count=2)
    old, servers = site.pids(), site.fork_servers()
    assert "everything stays as it was" in site.refused(1)
    assert site.pids() == old and site.fork_servers() == servers
    os.kill(old[1], signal.SIGKILL)
    until(lambda: site.pids()[1] not in (0, old[1]), "another worker 1")
    site.server.wait_workers(2)


def test_garbage_collections_are_watched_once_in_the_new_workers(serve, tmp_path, stats_at):
    (tmp_path / "watched.py").write_text(
        "import gc, growing\n"
        "def application(environ, start_response):\n"
        "    if environ['PATH_INFO'] != '/watchers':\n"
        "        return growing.application(environ, start_response)\n"
        "    start_response('200 OK', [])\n"
        "    return [str(len(gc.callbacks)).encode()]\n"
    )
    site = Site(serve, tmp_path, stats_at, "--pythonpath", tmp_path, "--module", "watched", "--gc-stats", count=1)
    watchers = http.get(site.address, "/watchers").text
    for _ in range(2):
        old = site.pids()
        site.refork(1)
        site.wait_replaced(old)
    assert http.get(site.address, "/watchers").text == watchers


def test_a_stop_in_the_middle_of_it_leaves_nothing_behind(serve, tmp_path, stats_at):
    site = Site(serve, tmp_path, stats_at)
    site.refork(1)
    site.server.stop()


def test_the_inside_of_the_new_workers_is_seen_as_before(serve, tmp_path, stats_at):
    site = Site(serve, tmp_path, stats_at, count=1)
    for _ in range(2):
        old = site.pids()
        site.refork(1)
        now = site.wait_replaced(old)
    holder, go = Connection(site.address), tmp_path / "go"
    holder.send(head("GET", f"/hold?{go}"))
    site.server.wait_stats(lambda document: document["workers"][0]["status"] == "busy", "a request in progress")
    reply, _ = ask(site.control, **{"do": "stacks", "worker": 1})
    threads = [thread for thread in reply["done"]["stacks"]["threads"] if thread["frames"]]
    assert threads and threads[0]["pid"] == now[1], reply
    assert any(frame["function"] == "application" for frame in threads[0]["frames"]), threads
    go.touch()
    assert holder.response().status == 200
    routes = site.server.wait_stats(lambda document: document.get("routes"), "routes")["routes"]
    assert any(route["requests"] for route in routes if "wait" in json.dumps(route)), routes
