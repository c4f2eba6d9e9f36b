"""SIGHUP: the new generation takes over under load without a lost request, or the old one stays."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from rig import http, stats
from rig.addresses import tcp
from rig.http import Connection, head
from rig.load import Load
from rig.site import KINDS
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI drops what waits while it reloads")

GOOD = """
VERSION = {version!r}
def application(environ, start_response):
    start_response("200 OK", [("Content-Length", str(len(VERSION)))])
    return [VERSION.encode()]
"""


class Deployed:
    """A server of an application that is rewritten on disk."""

    def __init__(self, serve, directory, stats_at, *arguments) -> None:
        self.file = directory / "deployed.py"
        self.write(GOOD.format(version="one"))
        self.addresses = {kind: tcp() for kind in KINDS}
        options = [part for kind, address in self.addresses.items() for part in (f"--{kind}", address)]
        self.server = serve(
            *options, "--wsgi-file", "deployed.py", "--stats", stats_at, "--processes", 3, "--threads", 2, *arguments,
            cwd=directory,
        )
        self.first = {worker["pid"] for worker in self.server.wait_workers(3)["workers"]}

    def write(self, source: str) -> None:
        """Replaces the application's file at one stroke."""
        fresh = self.file.with_suffix(".new")
        fresh.write_text(source)
        fresh.replace(self.file)

    def reload(self) -> None:
        self.server.send(signal.SIGHUP)

    def wait_replaced(self, old: set[int]) -> None:
        """Waits until none of the old workers is left and as many new ones accept."""

        def moved() -> bool:
            workers = self.server.stats()["workers"]
            ready = {worker["pid"] for worker in workers if worker["accepting"]}
            left = {process.pid for process in self.server.processes()} & old
            return len(ready) == 3 and not left

        until(moved, "every worker replaced", context=self.server.log)


@pytest.fixture(params=[[], ["--lazy-apps"]], ids=["preloaded", "lazy"])
def deployed(serve, tmp_path, stats_at, request):
    return Deployed(serve, tmp_path, stats_at, *request.param)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep_alive", [False, True], ids=["one-shot", "keep-alive"])
def test_a_reload_under_load_loses_nothing(deployed, kind, keep_alive):
    if kind == "socket" and keep_alive:
        pytest.skip("the uwsgi protocol has one request to a connection")
    server, address = deployed.server, deployed.addresses[kind]
    protocol = "uwsgi" if kind == "socket" else "http"
    master = server.stats()["pid"]
    with Load(address, clients=8, keep_alive=keep_alive, protocol=protocol, expect=good) as load:
        load.wait_good(100)
        deployed.write(GOOD.format(version="two"))
        deployed.reload()
        deployed.wait_replaced(deployed.first)
        load.wait_good(100)
    assert not load.lost
    assert http.get(deployed.addresses["http"], "/").text == "two"
    document = server.stats()
    assert (document["pid"], document["generation"]) == (master, 2)
    assert {worker["generation"] for worker in document["workers"]} == {2}


def good(answer) -> bool:
    return answer.status == 200 and answer.text in ("one", "two")


@pytest.mark.parametrize("source", ["raise RuntimeError('broken deploy')\n", "def application(:\n", "nothing = 1\n"])
def test_a_reload_to_a_broken_application_keeps_the_old_one(serve, tmp_path, stats_at, source):
    deployed = Deployed(serve, tmp_path, stats_at)
    server, address = deployed.server, deployed.addresses["http-socket"]
    with Load(address, clients=4, expect=good) as load:
        deployed.write(source)
        load.wait_good(50)
        deployed.reload()
        server.logged(r"deployed\.py")
        server.logged(r"(?i)(keep|stay|still|goes on)")
        load.wait_good(200)
    assert not load.lost
    assert http.get(address, "/").text == "one"
    workers = server.stats()["workers"]
    assert {worker["pid"] for worker in workers} == deployed.first
    # And the next deploy, which is right, takes over.
    deployed.write(GOOD.format(version="three"))
    deployed.reload()
    deployed.wait_replaced(deployed.first)
    assert http.get(address, "/").text == "three"


def test_a_worker_that_dies_after_a_broken_reload_comes_back_as_the_old_application(serve, tmp_path, stats_at):
    deployed = Deployed(serve, tmp_path, stats_at)
    server, address = deployed.server, deployed.addresses["http-socket"]
    deployed.write("raise RuntimeError('broken deploy')\n")
    deployed.reload()
    server.logged("RuntimeError: broken deploy")
    victim = min(deployed.first)
    os.kill(victim, signal.SIGKILL)
    until(lambda: victim not in {w["pid"] for w in server.stats()["workers"]}, "the dead one is noticed")
    server.wait_workers(3)
    assert {http.get(address, "/").text for _ in range(30)} == {"one"}


def test_many_reloads_in_a_row_end_with_the_last(serve, tmp_path, stats_at):
    deployed = Deployed(serve, tmp_path, stats_at)
    with Load(deployed.addresses["http"], clients=4, expect=lambda answer: answer.status == 200) as load:
        for number in range(5):
            deployed.write(GOOD.format(version=f"number {number}"))
            deployed.reload()
            load.wait_good(20)
        until(
            lambda: {http.get(deployed.addresses["http"], "/").text for _ in range(12)} == {"number 4"}, "the last version",
            context=deployed.server.log,
        )
        deployed.wait_replaced(deployed.first)
    assert not load.lost


def test_a_request_in_progress_outlives_the_reload(serve, tmp_path, stats_at, record, address):
    server = serve("--http-socket", address, "--wsgi-file", "probe.py", "--threads", 2, "--stats", stats_at)
    old, go = server.wait_workers(1)["workers"][0]["pid"], tmp_path / "go"
    with Connection(address) as connection:
        connection.send(head("GET", f"/slow?go={go}&record={record.path}"))
        record.wait()
        server.send(signal.SIGHUP)
        until(lambda: http.get(address, "/pid").text != str(old), "the new generation answers", context=server.log)
        go.touch()
        assert connection.response().text == str(old)
    until(lambda: old not in [process.pid for process in server.processes()], "the old one leaves")


SLOW = """
import os, time
open({loading!r}, "a").close()
end = time.monotonic() + 60
while not os.path.exists({go!r}) and time.monotonic() < end:
    time.sleep(0.01)
""" + GOOD


def test_no_fewer_workers_serve_while_the_new_application_loads(deployed, tmp_path):
    """However long that takes: here until the test says go on."""
    server, address = deployed.server, deployed.addresses["http-socket"]
    loading, go = tmp_path / "loading", tmp_path / "go"
    deployed.write(SLOW.format(version="two", loading=str(loading), go=str(go)))

    def serving() -> set[int]:
        return {worker["pid"] for worker in server.stats()["workers"] if worker["accepting"]}

    with Load(address, clients=4, expect=good) as load:
        deployed.reload()
        until(loading.exists, "the new application loads", context=server.log)
        load.wait_good(300)
        assert serving() == deployed.first
        go.touch()
        fewest = 3
        while serving() & deployed.first:
            fewest = min(fewest, len(serving()))
            load.wait_good(5)
        deployed.wait_replaced(deployed.first)
    assert fewest == 3
    assert not load.lost


@pytest.mark.parametrize("by", ["signal", "option"])
def test_a_reload_reads_the_file_again_and_names_what_stays(serve, program, address, stats_at, tmp_path, by):
    file, pidfile = tmp_path / "site.ini", tmp_path / "pid"
    (tmp_path / "page.py").write_text(
        "import os\ndef application(environ, start_response):\n    start_response('200 OK', [])\n"
        "    return [os.environ['WORD'].encode()]\n"
    )
    text = (
        f"[uwsgi]\nhttp-socket = {address}\nchdir = {tmp_path}\nwsgi-file = page.py\nstats = {stats_at}\npidfile = {pidfile}\n"
        "processes = 2\nenv = WORD=before\nif-reload =\nenv = WORD=%(word)\nendif =\n"
    )
    file.write_text(text)
    server = serve(file, listens=[address, stats_at])
    assert http.get(address, "/").text == "before"
    file.write_text(text.replace("processes = 2", "processes = 5") + "word = after\n")
    if by == "signal":
        server.send(signal.SIGHUP)
    else:
        told = subprocess.run([program.path, "--reload", pidfile], capture_output=True, text=True, check=False)
        assert told.returncode == 0, told.stderr
    server.logged("reload: processes cannot change while the server runs: it stays 2")
    until(lambda: http.get(address, "/").text == "after", "the new value is in force", context=server.log)
    # None that waits at a worker of before.
    until(lambda: [worker["generation"] for worker in stats.read(stats_at)["workers"]] == [2, 2], "both are new", context=server.log)
    until(lambda: sum("rwsgi worker" in process.command for process in server.processes()) == 2, "those before have left")
    # A file that has a mistake now changes nothing.
    file.write_text(text + "harakiri = -1\n")
    server.send(signal.SIGHUP)
    server.logged("site.ini:12: harakiri: expected")
    assert http.get(address, "/").text == "after"


@pytest.mark.parametrize("kind", ["http", "http-socket"])
def test_a_reload_reaches_what_limits_requests(serve, address, stats_at, tmp_path, kind):
    """The http router goes on as a process, and follows the new options."""
    (tmp_path / "page.py").write_text(
        "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'ok']\n"
    )
    file = tmp_path / "site.ini"
    text = f"[uwsgi]\n{kind} = {address}\nchdir = {tmp_path}\nwsgi-file = page.py\n"
    file.write_text(text + "limit-post = 100\nbuffer-size = 4096\n")
    server = serve(file, "--stats", stats_at, listens=[address])
    server.wait_workers(1)

    def statuses() -> tuple[int, int]:
        return (
            http.request(address, "POST", "/", body=b"x" * 1000).status,
            http.request(address, "GET", "/", headers={"Long": "x" * 6000}).status,
        )

    assert statuses() == (413, 431)
    file.write_text(text + "limit-post = 10000\nbuffer-size = 8192\n")
    server.send(signal.SIGHUP)
    until(lambda: statuses() == (200, 200), "the new limits are in force", context=server.log)
