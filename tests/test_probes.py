"""What orchestrators and balancers ask, is the server alive and does it want requests, and how it stops for them."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from rig import http
from rig.addresses import connect, tcp
from rig.control import ctl
from rig.http import Connection
from rig.supervisor import Notifications
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI has no probes")

# `/wait` answers when the file `go` is there; where there is a file `gate`, loading waits for what is written there.
APPLICATION = """
import os, time
if os.path.exists("gate"):
    open("gate").read()

def application(environ, start_response):
    while environ["PATH_INFO"] == "/wait" and not os.path.exists("go"):
        time.sleep(0.01)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


class Probed:
    """A server of the application above, with its addresses."""

    def __init__(self, serve, directory: Path, *arguments: object, kind: str = "http", gate: bool = False, env=None) -> None:
        self.directory = directory
        self.file = directory / "app.py"
        self.file.write_text(APPLICATION)
        if gate:
            os.mkfifo(directory / "gate")
        self.address, self.probe, self.at = tcp(), tcp(), tcp()
        self.server = serve(
            f"--{kind}", self.address, "--wsgi-file", "app.py", "--probe", self.probe, "--stats", self.at, *arguments,
            cwd=directory, env=env,
        )
        if not gate:
            until(self.ready, "it is ready", context=self.server.log)

    def ask(self, path: str) -> tuple[int, str]:
        answer = http.get(self.probe, path)
        return answer.status, answer.text

    def ready(self) -> bool:
        return self.ask("/-/ready")[0] == 200

    def wait_not_ready(self, why: str) -> None:
        until(lambda: self.ask("/-/ready") == (503, why + "\n"), f"not ready: {why}",
              context=lambda: f"{self.ask('/-/ready')}\n{self.server.log()}")


@pytest.fixture
def probed(serve, tmp_path):
    return lambda *arguments, **more: Probed(serve, tmp_path, *arguments, **more)


def test_a_server_that_loads_is_alive_and_not_ready(probed, tmp_path):
    site = probed(gate=True)
    assert site.ask("/-/live") == (200, "alive\n")
    assert site.ask("/-/ready") == (503, "loading: the application is not loaded yet\n")
    (tmp_path / "gate").write_text("")
    until(site.ready, "it is ready", context=site.server.log)
    assert site.ask("/-/ready") == (200, "ready\n")


def test_a_probe_address_has_probes_and_nothing_else_under_any_name(probed):
    site = probed()
    for path in ("/-/live", "/-/ready"):
        answer = http.get(site.probe, path, {"Host": "10.1.2.3:8080"})
        assert (answer.status, answer.header("Cache-Control")) == (200, "no-store")
        head = http.head_of(site.probe, path)
        assert (head.status, head.header("Content-Length")) == (200, str(len(answer.body)))
        assert http.request(site.probe, "POST", path).status == 405
    for path in ("/", "/metrics", "/-/", "/-/ready/", "/-/live/../../"):
        assert site.ask(path) == (404, "there is /-/live and /-/ready\n"), path


def test_stats_over_http_answer_probes_too(probed):
    site = probed("--stats-http")
    for path in ("/-/live", "/-/ready"):
        assert http.get(site.at, path).status == 200
        assert http.get(site.at, path, {"Host": "evil.example"}).status == 421
    assert http.get(site.at, "/").status == 200


def test_a_busy_pool_answers_probes_at_once(probed, tmp_path):
    site = probed("--processes", 2, kind="http-socket")
    clients = []
    for busy in (1, 2, 2, 2):
        # One after the other: of clients that come together one worker may take more than it can serve.
        clients.append(Connection(site.address))
        clients[-1].send(http.head("GET", "/wait"))
        site.server.wait_stats(
            lambda document: sum(w["cores"][0]["in_request"] for w in document["workers"]) == busy, f"{busy} are busy"
        )
    assert (site.ask("/-/live")[0], site.ask("/-/ready")[0]) == (200, 200)
    (tmp_path / "go").touch()
    for client in clients:
        assert client.response().status == 200


def closed(connection: socket.socket) -> bool:
    """Waits for the server to close the connection."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        # It had sent something that was not read.
        return True


def test_clients_that_are_silent_or_slow_hold_no_probe_up(probed):
    site = probed()
    silent = [connect(site.probe) for _ in range(100)]
    for connection in silent[::2]:
        connection.sendall(b"GET /-/rea")
    assert site.ready()
    # They are bounded: the first ones were closed for the others.
    assert closed(silent[0])
    for connection in silent[1:]:
        connection.close()


def test_a_server_whose_workers_accept_nothing_is_not_ready(probed):
    site = probed("--processes", 2)
    why = "no worker accepts: each is starting, has died, or is stopped or drained"
    workers = [worker["pid"] for worker in site.server.wait_workers(2)["workers"]]
    os.kill(workers[0], signal.SIGSTOP)
    assert site.ready()
    os.kill(workers[1], signal.SIGSTOP)
    site.wait_not_ready(why)
    assert site.ask("/-/live")[0] == 200
    assert site.server.stats()["ready"] is False
    for pid in workers:
        os.kill(pid, signal.SIGCONT)
    until(site.ready, "it is ready again", context=site.server.log)


def test_a_server_without_workers_until_the_next_request_is_ready(probed):
    site = probed("--cheap")
    assert http.get(site.address, "/").text == "ok"
    assert site.ready()


def test_a_saturated_server_says_so_when_it_has_lasted(probed, tmp_path):
    site = probed("--ready-saturation", "1.5")
    clients = [Connection(site.address) for _ in range(2)]
    began = time.monotonic()
    for client in clients:
        client.send(http.head("GET", "/wait"))
    site.server.wait_stats(lambda document: document["listen_queue"] == 1, "one waits")
    assert site.ready() or time.monotonic() - began > 4, "it has not lasted"
    site.wait_not_ready("saturated: more requests than ready-saturation allows, for 5 s")
    (tmp_path / "go").touch()
    for client in clients:
        assert client.response().status == 200
    until(site.ready, "it is ready again", context=site.server.log)


def test_the_stats_say_whether_it_is_ready_and_how_reloads_ended(probed, tmp_path):
    site = probed("--processes", 2, gate=True)
    document = site.server.stats()
    assert (document["ready"], document["draining"]) == (False, False)
    (tmp_path / "gate").write_text("")
    document = site.server.wait_stats(lambda document: document["ready"], "ready")
    assert (document["draining"], document["reloads"]) == (False, {"done": 0, "failed": 0})
    (tmp_path / "gate").unlink()
    site.file.write_text("1 / 0")
    site.server.send(signal.SIGHUP)
    site.server.wait_stats(lambda document: document["reloads"] == {"done": 0, "failed": 1}, "a failed reload")
    site.file.write_text(APPLICATION)
    site.server.send(signal.SIGHUP)
    document = site.server.wait_stats(lambda document: document["reloads"]["done"], "a reload that is done")
    assert (document["ready"], document["reloads"]) == (True, {"done": 1, "failed": 1})


# Stopping


@pytest.mark.parametrize("kind", ["http", "http-socket"])
def test_a_server_that_drains_serves_and_says_that_it_goes(probed, program, tmp_path, kind):
    control = tmp_path / "control"
    site = probed("--drain-delay", 60, "--processes", 2, "--control", control, kind=kind)
    with Connection(site.address) as kept:
        assert kept.request("GET", "/").header("Connection") is None
        site.server.send(signal.SIGTERM)
        site.wait_not_ready("draining: the server was told to stop, and still serves what comes")
        assert site.ask("/-/live")[0] == 200
        document = site.server.stats()
        assert (document["ready"], document["draining"]) == (False, True)
        answer = kept.request("GET", "/")
        assert (answer.status, answer.header("Connection")) == (200, "close")
        assert kept.closed_by_server()
    with Connection(site.address) as fresh:
        answer = fresh.request("GET", "/")
        assert (answer.status, answer.header("Connection")) == (200, "close")
    # What happens to the pool meanwhile is as ever.
    old = document["workers"][0]["pid"]
    os.kill(old, signal.SIGKILL)
    site.server.wait_stats(lambda document: document["workers"][0]["accepting"] and document["workers"][0]["pid"] != old,
                           "the worker is replaced")
    site.server.send(signal.SIGHUP)
    site.server.logged("reload: not done: the server was told to stop")
    ordered = ctl(program, "--control", control, "reload")
    assert ordered.returncode != 0 and "told to stop" in ordered.stderr, ordered
    with Connection(site.address) as waiting:
        waiting.send(http.head("GET", "/wait"))
        site.server.wait_stats(lambda document: any(w["cores"][0]["in_request"] for w in document["workers"]), "it waits")
        site.server.send(signal.SIGINT)
        site.server.logged("SIGINT: stopping after the requests in progress")
        site.wait_not_ready("stopping: the server finishes what it has")
        (site.directory / "go").touch()
        assert waiting.response().status == 200
    assert site.server.wait_exit() == 0


def test_the_delay_ends_by_itself(probed, tmp_path):
    fifo = tmp_path / "fifo"
    site = probed("--drain-delay", 1, "--master-fifo", fifo)
    fifo.write_text("q")
    assert site.server.wait_exit() == 0
    log = site.server.log()
    assert log.index("master-fifo: draining: requests are accepted for 1 s more") < log.index("drained: stopping after"), log


@pytest.mark.parametrize("kind", ["http", "http-socket"])
def test_a_supervisor_that_signals_every_process_at_once_ends_no_service(probed, kind):
    site = probed("--drain-delay", 60, "--processes", 2, kind=kind)
    site.server.wait_workers(2)
    before = {process.pid for process in site.server.processes()}
    # Whoever waits for this one to end before it accepts again would keep all others waiting.
    waiting = Connection(site.address)
    waiting.send(http.head("GET", "/wait"))
    site.server.wait_stats(lambda document: any(w["cores"][0]["in_request"] for w in document["workers"]), "it waits")
    os.killpg(site.server.pid, signal.SIGTERM)
    site.server.logged("draining")
    for _ in range(20):
        assert http.get(site.address, "/").text == "ok"
    (site.directory / "go").touch()
    assert waiting.response().status == 200
    site.wait_not_ready("draining: the server was told to stop, and still serves what comes")
    until(lambda: {process.pid for process in site.server.processes()} - before, "those that have left have successors",
          context=site.server.log)
    site.server.send(signal.SIGTERM)
    assert site.server.wait_exit() == 0


def test_a_server_that_never_served_does_not_drain(probed, tmp_path):
    site = probed("--drain-delay", 600, gate=True)
    site.server.send(signal.SIGTERM)
    assert site.server.wait_exit() == 0
    assert "draining" not in site.server.log()


@pytest.fixture
def systemd(tmp_path):
    notifications = Notifications(tmp_path / "notify")
    yield notifications
    notifications.close()


def test_systemd_is_told_that_the_stop_takes_longer(probed, systemd):
    site = probed("--drain-delay", 600, "--reload-mercy", 20, env={"NOTIFY_SOCKET": str(systemd.path)})
    systemd.wait("READY=1")
    site.server.send(signal.SIGTERM)
    systemd.wait("EXTEND_TIMEOUT_USEC=625000000")
    assert "STOPPING=1" in systemd.lines()
    systemd.wait("STATUS=draining")
    site.server.send(signal.SIGTERM)
    assert site.server.wait_exit() == 0
