"""What an application does to its request through the `uwsgi` module, seen by the client and in the log."""

from __future__ import annotations

import pytest

from rig import http
from rig.addresses import tcp
from rig.each import servers


@pytest.fixture(scope="module", params=["rwsgi", "rwsgi behind its http router", "uwsgi"])
def reach(request, program, venv_bin, tmp_path_factory):
    """`apps/reach.py` under each server: the server, and its address."""
    name = request.param.split()[0]
    started = servers(name, program, venv_bin, tmp_path_factory.mktemp(name))
    address = tcp()
    socket = "--http" if "router" in request.param else "--http-socket"
    arguments = ("--wsgi-file", "reach.py", "--master", "--processes", 2, "--mules", 2, "--farm", "f:2", "--disable-logging")
    yield started(socket, address, *arguments), address
    started.stop_all()


@pytest.fixture
def file(tmp_path):
    """A file of ten bytes."""
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    return path


def test_files_are_sent_whole_or_in_part(reach, file):
    server, address = reach
    assert http.get(address, f"/file?{file}").body == b"0123456789"
    assert http.get(address, f"/part?{file}").body == b"234"
    server.logged("sendfile True", 2)


def test_a_client_has_its_answer_while_the_application_goes_on(reach, tmp_path):
    server, address = reach
    go = tmp_path / "go"
    assert http.get(address, f"/early?{go}").body == b"ok"
    assert "went on" not in server.log()
    go.touch()
    server.logged("went on")


def test_messages_reach_their_mule_and_their_farm(reach):
    server, address = reach
    assert http.get(address, "/tell").body == b"done"
    server.logged("^mule 1 was told b'hello'")
    server.logged("^farm mule 2 was told b'work'")


def test_a_request_is_logged_with_what_the_application_adds(serve, address):
    if serve.program.is_uwsgi:
        pytest.skip("uWSGI shows variables where log-format names them")
    server = serve("--http-socket", address, "--wsgi-file", "reach.py", "--mules", 1, "--disable-logging")
    http.get(address, "/plain")
    http.get(address, "/noted")
    server.logged(r'"GET /noted HTTP/1.1" 200 .* user="somebody"$')
    assert "/plain" not in server.log()
