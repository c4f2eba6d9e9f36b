"""The http router's target, as people name it beside the socket that it leads to."""

from __future__ import annotations

import pytest

from rig import http, uwsgi
from rig.addresses import tcp


@pytest.mark.parametrize("form", ["unix", "tcp"])
def test_the_server_s_own_socket_is_where_requests_go(serve, tmp_path, form):
    target = str(tmp_path / "app.sock") if form == "unix" else tcp()
    at = tcp()
    serve("--master", "--http", at, "--http-to", target, "--socket", target, "--wsgi-file", "probe.py")
    assert http.get(at, "/unread").text == "not read"
    assert uwsgi.request(target, "GET", "/unread").text == "not read"


@pytest.mark.only_rwsgi(why="uWSGI's router goes where it is told")
def test_another_server_s_socket_is_refused(serve, tmp_path):
    arguments = ("--http", tcp(), "--socket", tmp_path / "app.sock", "--wsgi-file", "probe.py")
    server = serve.run(*arguments, "--http-to", tmp_path / "other.sock")
    assert server.wait_exit() != 0
    assert "http-to: " in server.log() and "is no socket of this server" in server.log()


@pytest.mark.only_rwsgi(why="uWSGI warns of nothing")
def test_its_own_socket_is_accepted_silently(serve, tmp_path):
    target = str(tmp_path / "app.sock")
    server = serve("--http", tcp(), "--http-to", target, "--socket", target, "--wsgi-file", "probe.py")
    assert "http-to" not in server.log()
