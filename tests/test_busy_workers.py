"""Connections to `http-socket` of a worker whose threads are all busy: another worker's threads serve them meanwhile."""

from __future__ import annotations

import json
import os
import signal

import pytest

from rig import processes
from rig.http import Closed, Connection, head
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI keeps no connection between requests")

# So many connections each worker has at least: more than threads.
EACH = 6
APP = """
import json, os, resource, time

# How many there are whenever this process forks, before and after.
threads = []
count_threads = lambda: threads.append(len(os.listdir("/proc/self/task")))
os.register_at_fork(before=count_threads, after_in_parent=count_threads)

def application(environ, start_response):
    path = environ["PATH_INFO"]
    while path == "/wait" and not os.path.exists("go"):
        time.sleep(0.005)
    body = str(os.getpid())
    if path == "/no-more-files":
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    if path == "/fork":
        threads.clear()
        child = os.fork()
        if child == 0:
            links = []
            for fd in os.listdir("/proc/self/fd"):
                try:
                    links.append(os.readlink("/proc/self/fd/" + fd))
                except OSError:
                    pass
            with open("links", "w") as file:
                json.dump(links, file)
            os._exit(0)
        count_threads()
        os.waitpid(child, 0)
        body = json.dumps(threads)
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body.encode()]
"""


class Site:
    """Two workers, and clients whose connections stay open. Of each the worker is known that has served it last."""

    def __init__(self, server, address: str, threads: int, go) -> None:
        self.server, self.threads, self.go = server, threads, go
        self.pids = [worker["pid"] for worker in server.wait_workers(2)["workers"]]
        self.asked = 0
        self.held: list[Connection] = []
        self.served_by: dict[Connection, int] = {}

        def enough() -> bool:
            client = Connection(address)
            self.ask(client)
            self.served_by[client] = self.answer(client)
            return all(len(self.of(pid)) >= EACH for pid in self.pids)

        until(enough, "each worker has some of the connections", context=server.log)

    def ask(self, client: Connection, path: str = "/") -> None:
        client.send(head("GET", path))
        self.asked += 1

    def answer(self, client: Connection) -> int:
        response = client.response()
        assert response.status == 200
        return int(response.text)

    def of(self, pid: int) -> list[Connection]:
        """The clients of a worker, but for those that hold its threads."""
        return [client for client, by in self.served_by.items() if by == pid and client not in self.held]

    def hold(self, pid: int) -> list[Connection]:
        """Keeps all threads of a worker busy."""
        held = self.of(pid)[: self.threads]
        self.held += held
        for client in held:
            self.ask(client, "/wait")
        until(lambda: self.busy(pid) == self.threads, "all its threads are busy", context=self.server.log)
        return held

    def worker(self, pid: int) -> dict:
        return next(worker for worker in self.server.stats()["workers"] if worker["pid"] == pid)

    def busy(self, pid: int) -> int:
        return sum(core["in_request"] for core in self.worker(pid)["cores"])


@pytest.fixture(params=[1, 2])
def threads(request):
    """How many threads each worker has."""
    return request.param


@pytest.fixture
def site(serve, address, stats_at, tmp_path, threads):
    """See `Site`."""
    (tmp_path / "app.py").write_text(APP)
    server = serve(
        "--http-socket", address, "--chdir", tmp_path, "--wsgi-file", "app.py", "--processes", 2, "--threads", threads,
        "--stats", stats_at, "--reload-mercy", 30, "--worker-reload-mercy", 30,
    )
    site = Site(server, address, threads, tmp_path / "go")
    yield site
    site.go.touch()
    for client in site.served_by:
        client.close()


def test_a_connection_of_a_busy_worker_is_served_by_a_free_one(site):
    busy, free = site.pids
    held = site.hold(busy)
    for client in site.of(busy):
        site.ask(client)
        site.served_by[client] = site.answer(client)
    assert {by for client, by in site.served_by.items() if client not in held} == {free}
    # They stay where they are served.
    for client in site.of(free):
        site.ask(client)
        assert site.answer(client) == free
    site.go.touch()
    assert [site.answer(client) for client in held] == [busy] * len(held)


def test_requests_at_once_are_all_served_and_counted(site):
    busy, free = site.pids
    held = site.hold(busy)
    others = [client for client in site.served_by if client not in held]
    for client in others:
        site.ask(client)
    for client in others:
        assert site.answer(client) == free
    site.go.touch()
    for client in held:
        site.answer(client)
    document = site.server.wait_stats(
        lambda document: sum(worker["requests"] for worker in document["workers"]) == site.asked, "all are counted"
    )
    assert {worker["pid"]: worker["exceptions"] for worker in document["workers"]} == {busy: 0, free: 0}
    assert sum(core["read_errors"] + core["write_errors"] for worker in document["workers"] for core in worker["cores"]) == 0


def test_when_all_are_busy_whoever_is_free_first_serves(site):
    first, second = site.pids
    held = site.hold(first) + site.hold(second)
    others = [client for client in site.served_by if client not in held]
    for client in others:
        site.ask(client)
    site.go.touch()
    for client in others + held:
        assert site.answer(client) in site.pids


def test_a_worker_without_descriptors_takes_none(site):
    busy, free = site.pids
    client = site.of(free)[0]
    site.ask(client, "/no-more-files")
    assert site.answer(client) == free
    held = site.hold(busy)
    others = site.of(busy)
    for client in others:
        site.ask(client)
    site.server.logged("cannot accept connections")
    site.go.touch()
    for client in held + others:
        assert site.answer(client) == busy


def test_a_worker_that_is_killed_loses_only_its_own_requests(site):
    busy, free = site.pids
    held = site.hold(busy)
    moved = site.of(busy)
    for client in moved:
        site.ask(client)
        assert site.answer(client) == free
    os.kill(busy, signal.SIGKILL)
    for client in held:
        with pytest.raises(Closed):
            client.response()
    for client in moved:
        site.ask(client)
        assert site.answer(client) != busy


def test_at_a_stop_every_request_that_was_sent_is_served(site):
    held = [client for pid in site.pids for client in site.hold(pid)]
    others = [client for client in site.served_by if client not in held]
    for client in others:
        site.ask(client)
    site.server.send(signal.SIGTERM)
    site.server.logged("SIGTERM")
    site.go.touch()
    for client in held + others:
        assert site.answer(client) in site.pids
    assert site.server.wait_exit() == 0


def test_a_reload_does_not_wait_with_connections_of_a_worker_that_leaves(site):
    busy = site.pids[0]
    held = site.hold(busy)
    waiting = site.of(busy)
    site.server.send(signal.SIGHUP)
    site.server.wait_stats(
        lambda document: not {worker["pid"] for worker in document["workers"]} & set(site.pids), "others are the workers"
    )
    for client in waiting:
        site.ask(client)
        assert site.answer(client) != busy
    site.go.touch()
    for client in held:
        assert site.answer(client) == busy


def test_a_child_of_the_application_has_no_part_of_it(site, tmp_path):
    pid = site.pids[0]
    if site.threads > 1:
        pytest.skip("there is another thread of Python's")

    def watches() -> bool:
        client = site.of(pid)[0]
        site.ask(client)
        site.answer(client)
        return any(name.endswith("peer") for name in processes.look(pid).threads())

    until(watches, "its watcher runs", context=site.server.log)
    client = site.of(pid)[0]
    client.send(head("GET", "/fork"))
    # Python 3.12 and later look for threads, and warn of them.
    assert json.loads(client.response().text) == [1, 1, 1]
    links = json.loads((tmp_path / "links").read_text())
    sockets = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    shared = [link for link in links if link in sockets and link.startswith("socket:")]
    # The call socket is no client's.
    assert len(shared) <= 1, shared
    until(watches, "it runs again", context=site.server.log)
