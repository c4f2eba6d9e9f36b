"""Workers that die: replaced, explained, and nothing lost but what they held."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import threading

import pytest

from rig import http, processes, stats
from rig.addresses import connect
from rig.http import Closed
from rig.load import Load
from rig.site import KINDS, Site, every_kind
from rig.waiting import until

ONLY_ITS_OWN = pytest.mark.only_rwsgi(why="uWSGI's counters and log do not tell")


def replaced(server, worker_id: int, old: int) -> dict:
    """Waits until another process has the worker's place."""

    def look():
        worker = server.stats()["workers"][worker_id - 1]
        return worker if worker["pid"] not in (0, old) and worker["accepting"] else None

    return until(look, f"another process in the place of {old}", context=server.log)


@ONLY_ITS_OWN
@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_worker_loses_only_the_requests_that_it_held(serve, stats_at, tmp_path, record, kind):
    site = every_kind(serve, "--wsgi-file", "probe.py", "--processes", 2, "--threads", 2, "--stats", stats_at)[kind]
    server, go = site.server, tmp_path / "go"
    server.wait_workers(2)
    target = f"/slow?go={go}&record={record.path}"
    connections = []
    # One after the other: of clients that come together a worker may take more than it has threads for.
    for count in range(1, 5):
        connections.append(site.open("GET", target))
        record.wait(count)
    # Every core is busy now: these wait, and belong to nobody.
    connections += [site.open("GET", "/pid") for _ in range(4)]
    holders = [int(line.split()[1]) for line in record.lines()]
    victim = holders[0]
    held = holders.count(victim)
    assert held == 2
    processes.kill(victim)
    server.logged(r"signal 9|SIGKILL")
    go.touch()
    answered, lost = 0, 0
    for connection in connections:
        try:
            answered += connection.response().status == 200
        except Closed:
            lost += 1
        connection.close()
    assert answered == 6, f"{lost} closed, of the rest not all with 200:\n{server.log()}"
    until(lambda: stats.total(server.stats(), "requests") in (6, 8), "all counted", context=lambda: str(server.stats()))
    assert sum(worker["recycled"]["crash"] for worker in server.stats()["workers"]) == 1


@ONLY_ITS_OWN
@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_under_load_loses_no_more_than_was_held_and_no_count(serve, stats_at, kind):
    site = every_kind(serve, "--wsgi-file", "probe.py", "--processes", 4, "--threads", 2, "--stats", stats_at)[kind]
    server = site.server
    server.wait_workers(4)
    clients, kills = 8, 5
    protocol = "uwsgi" if kind == "socket" else "http"
    with Load(site.address, "/pid", clients=clients, protocol=protocol) as load:
        for round_ in range(kills):
            load.wait_good(200)
            worker = server.stats()["workers"][round_ % 4]
            processes.kill(worker["pid"])
            replaced(server, round_ % 4 + 1, worker["pid"])
        load.wait_good(200)
    lost = sum(load.lost.values())
    # The http router sends a worker no more than it has threads for; elsewhere a client has one request under way.
    assert lost <= kills * (2 if kind == "http" else clients), load.lost
    # A kill can fall between the last byte of an answer and its count: at most one for each core that was killed. The last
    # ones are counted after their clients have them.
    document = server.wait_stats(
        lambda document: (requests := stats.total(document, "requests")) >= load.good - kills * 2
        and stats.histogram_total(document["latency"]) == requests,
        "all are counted",
    )
    assert stats.total(document, "requests") <= load.sent
    assert sum(worker["respawn_count"] for worker in document["workers"]) == 4 + kills


@ONLY_ITS_OWN
@pytest.mark.parametrize(("how", "reason"), [("segv", r"signal 11|SIGSEGV"), ("kill", r"signal 9|SIGKILL"), ("exit", r"status 7")])
def test_the_log_says_why_a_worker_died_and_what_it_held(serve, address, stats_at, how, reason):
    server = serve("--http-socket", address, "--wsgi-file", "probe.py", "--processes", 2, "--stats", stats_at)
    server.wait_workers(2)
    with pytest.raises(Closed):
        http.get(address, f"/die?how={how}&token=the-last-one")
    server.logged(reason)
    server.logged(r"died: .*while it served GET /die\?how=…&token=…")
    server.wait_workers(2)
    assert http.get(address, "/pid").status == 200


@ONLY_ITS_OWN
def test_a_worker_that_dies_at_its_start_is_tried_again_ever_more_slowly(serve, tmp_path, address, stats_at):
    (tmp_path / "fragile.py").write_text(
        "import os, pathlib, time\n"
        "with open('starts', 'a') as file: file.write(f'{time.monotonic()}\\n')\n"
        "if pathlib.Path('broken').exists(): os._exit(9)\n"
        "def application(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [b'ok']\n"
    )
    server = serve(
        *("--http-socket", address, "--wsgi-file", "fragile.py", "--lazy-apps", "--processes", 1, "--stats", stats_at),
        cwd=tmp_path,
    )
    old = server.wait_workers(1)["workers"][0]["pid"]
    (tmp_path / "broken").touch()
    starts = tmp_path / "starts"
    before = len(starts.read_text().splitlines())
    processes.kill(old)
    moments = until(
        lambda: (found := starts.read_text().splitlines()[before:]) and len(found) >= 3 and [float(line) for line in found],
        "the third start",
        context=server.log,
    )
    delays = [int(match[1]) for match in server.logged(r"status 9.*replacing it in (\d+) s", count=2)]
    assert 0 < delays[0] < delays[1]
    # A busy machine makes it longer.
    assert moments[1] - moments[0] >= delays[0] and moments[2] - moments[1] >= delays[1], (moments, delays)
    (tmp_path / "broken").unlink()
    replaced(server, 1, old)
    assert http.get(address, "/").body == b"ok"


@ONLY_ITS_OWN
def test_the_totals_outlive_the_worker(serve, address, stats_at):
    server = serve("--http-socket", address, "--wsgi-file", "probe.py", "--processes", 1, "--stats", stats_at)
    pid = server.wait_workers(1)["workers"][0]["pid"]
    for _ in range(10):
        http.get(address, "/pid")
    http.get(address, "/fail?token=t")
    # A client has its response before the request is counted.
    before = server.wait_stats(
        lambda document: document["workers"][0]["requests"] == stats.histogram_total(document["workers"][0]["latency"]) == 11,
        "11 requests",
    )["workers"][0]
    processes.kill(pid)
    after = replaced(server, 1, pid)
    for key in ("requests", "exceptions", "tx", "running_time", "responses", "latency"):
        assert after[key] == before[key], key
    assert (before["requests"], before["delta_requests"], after["delta_requests"]) == (11, 11, 0)
    assert after["respawn_count"] == before["respawn_count"] + 1
    assert after["recycled"]["crash"] == 1


@ONLY_ITS_OWN
@pytest.mark.parametrize("name", ["forksrv", "http"])
def test_a_helper_process_that_is_killed_comes_back(serve, stats_at, name):
    sites = every_kind(serve, "--wsgi-file", "probe.py", "--processes", 2, "--stats", stats_at)
    server = sites["http"].server
    server.wait_workers(2)

    def named() -> list[processes.Process]:
        return [process for process in server.processes() if process.name == f"rwsgi {name}"]

    until(lambda: len(named()) == 1, "it has its name", context=lambda: str(server.processes()))
    found = named()
    with Load(sites["http-socket"].address, "/pid", clients=2) as load:
        processes.kill(found[0].pid)
        load.wait_good(100)
    assert not load.lost
    old = server.stats()["workers"][0]["pid"]
    processes.kill(old)
    replaced(server, 1, old)
    until(lambda: answers(sites["http"]), "the http router answers", context=server.log)


def answers(site) -> bool:
    try:
        return site.get("/pid").status == 200
    except OSError:
        return False


@ONLY_ITS_OWN
@ONLY_ITS_OWN
@pytest.mark.parametrize("kind", KINDS)
def test_a_new_server_can_start_while_orphans_finish(serve, address, tmp_path, kind):
    """As a supervisor does it that kills without patience: what is held is finished, and the address is free at once."""
    arguments = (f"--{kind}", address, "--wsgi-file", "worklife.py", "--processes", 2, "--threads", 2)
    first = serve(*arguments)
    started, go = tmp_path / "started", tmp_path / "go"
    with Site(first, kind, address).open("GET", f"/?started={started}&until={go}") as connection:
        until(started.exists, "the request has begun")
        first.send(signal.SIGKILL)
        first.wait_exit()
        second = until(lambda: serve_if_free(serve, arguments), "a new server starts", context=first.log)
        assert Site(second, kind, address).get("/").status == 200
        go.touch()
        assert connection.response().status == 200
    first.wait_gone()


def serve_if_free(serve, arguments):
    """A server that has bound its address; None when it had to give up."""
    server = serve.start(*arguments)
    until(lambda: server.process.poll() is not None or " on 127.0.0.1:" in server.log(), "it starts or ends", context=server.log)
    if server.process.poll() is not None:
        assert "Address already in use" in server.log(), server.log()
        return None
    return server.wait_ready()


def test_nobody_stays_when_the_master_is_killed(serve, stats_at):
    sites = every_kind(serve, "--wsgi-file", "probe.py", "--processes", 4, "--stats", stats_at)
    server = sites["http"].server
    server.wait_workers(4)
    assert len(server.processes()) >= 6
    server.send(signal.SIGKILL)
    server.wait_exit()
    server.wait_gone()


PIDFD_GETFD = 438


def listener_of(pid: int, address: str) -> socket.socket:
    """The socket of another process that listens there."""
    pidfd = os.pidfd_open(pid)
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        for number in map(int, os.listdir(f"/proc/{pid}/fd")):
            fd = libc.syscall(PIDFD_GETFD, pidfd, number, 0)
            if fd < 0:
                if ctypes.get_errno() == 1:
                    pytest.skip("the system does not let this user have descriptors of other processes")
                continue
            try:
                found = socket.socket(fileno=fd)
                if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) and found.getsockname()[1] == int(
                    address.rpartition(":")[2]
                ):
                    return found
                found.close()
            except OSError:
                os.close(fd)
    finally:
        os.close(pidfd)
    raise AssertionError(f"process {pid} does not listen on {address}")


@ONLY_ITS_OWN
def test_a_connection_whose_worker_was_killed_between_its_wake_up_and_accepting_is_served(serve, address, stats_at):
    """The kernel wakes one waiter for a connection. Here that is a thread of this test, which does not accept."""
    server = serve("--http-socket", address, "--wsgi-file", "probe.py", "--processes", 2, "--stats", stats_at)
    server.wait_workers(2)
    worker = next(process for process in server.processes() if process.name == "rwsgi w1")
    listener = listener_of(worker.pid, address)
    waiter = select.epoll()
    woken = threading.Event()
    waiter.register(listener, select.EPOLLIN | select.EPOLLEXCLUSIVE)
    thread = threading.Thread(target=lambda: waiter.poll(60) and woken.set(), daemon=True)
    thread.start()
    request = b"GET /pid HTTP/1.1\r\nHost: a\r\n\r\n"
    clients = []

    def is_woken_by_one_more() -> bool:
        client = connect(address)
        clients.append(client)
        client.sendall(request)
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
        return woken.is_set()

    # Each worker that takes one steps back behind this test.
    until(is_woken_by_one_more, "the thread is woken")
    for client in clients:
        client.close()
    listener.close()
