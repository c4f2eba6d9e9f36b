"""Stopping: gracefully at the first signal, at once at the second, and nothing stays."""

from __future__ import annotations

import os
import signal

import pytest

from rig import http
from rig.http import Closed, Connection
from rig.site import KINDS, every_kind
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI's signals mean other things")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT], ids=lambda number: number.name)
def test_a_request_in_progress_is_finished(serve, tmp_path, record, kind, number):
    site = every_kind(serve, "--wsgi-file", "probe.py", "--processes", 2, "--threads", 2)[kind]
    server, go = site.server, tmp_path / "go"
    with site.open("GET", f"/slow?go={go}&record={record.path}") as connection:
        holder = int(record.wait()[0].split()[1])
        everybody = len(server.processes())
        server.send(number)
        server.logged(number.name)
        if kind != "http":
            # Who has nothing to do goes first: so much of the stop is done while the request still runs.
            until(lambda: len(server.processes()) < everybody, "an idle process leaves", context=server.log)
        assert holder in [process.pid for process in server.processes()]
        go.touch()
        assert connection.response().text == str(holder)
    assert server.wait_exit() == 0, server.log()
    server.wait_gone()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT], ids=lambda number: number.name)
def test_a_second_signal_stops_at_once(serve, tmp_path, record, number):
    site = every_kind(serve, "--wsgi-file", "probe.py", "--processes", 2, "--threads", 2)["http-socket"]
    server = site.server
    with site.open("GET", f"/slow?go={tmp_path}/never&record={record.path}") as connection:
        record.wait()
        server.send(number)
        server.logged(number.name)
        server.send(number)
        server.wait_exit()
        server.wait_gone()
        with pytest.raises((Closed, ConnectionError)):
            connection.response()


def test_an_idle_connection_does_not_hold_up_the_stop(serve):
    sites = every_kind(serve, "--wsgi-file", "probe.py", "--processes", 2)
    server = sites["http"].server
    idle = [Connection(sites[kind].address) for kind in ("http", "http-socket") for _ in range(4)]
    for connection in idle:
        assert connection.request("GET", "/pid").status == 200
    server.send(signal.SIGTERM)
    assert server.wait_exit() == 0
    for connection in idle:
        assert connection.closed_by_server()
        connection.close()


def test_ctrl_c_reaches_every_process_and_is_still_graceful(serve, tmp_path, record):
    """A terminal sends the signal to the whole group, not to the master alone."""
    site = every_kind(serve, "--wsgi-file", "probe.py", "--processes", 2)["http"]
    server, go = site.server, tmp_path / "go"
    with site.open("GET", f"/slow?go={go}&record={record.path}") as connection:
        record.wait()
        os.killpg(server.pid, signal.SIGINT)
        server.logged("SIGINT")
        go.touch()
        assert connection.response().status == 200
    assert server.wait_exit() == 0, server.log()
    assert "KeyboardInterrupt" not in server.log()


def test_the_port_is_free_again_after_a_stop(serve, address):
    for _ in range(3):
        server = serve("--http-socket", address, "--wsgi-file", "probe.py")
        assert http.get(address, "/pid").status == 200
        server.stop()


def test_a_unix_socket_that_a_killed_server_left_is_taken_over(serve, tmp_path):
    path = tmp_path / "app.sock"
    first = serve("--http-socket", path, "--wsgi-file", "probe.py")
    first.destroy()
    until(lambda: not first.processes(), "the first is gone")
    assert path.exists()
    serve("--http-socket", path, "--wsgi-file", "probe.py")
    assert http.get(str(path), "/pid").status == 200
