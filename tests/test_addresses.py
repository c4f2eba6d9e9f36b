"""Every form of address for every kind of socket, and several of each at once."""

from __future__ import annotations

import json
import os
import stat

import pytest

from rig import http, uwsgi
from rig.addresses import abstract, connect, free_port, tcp
from rig.waiting import until

FORMS = ("host", "name", "port", "star", "ipv6", "unix", "relative", "abstract")


def address_of(form: str, directory) -> str:
    """A free address of a form."""
    return {
        "host": lambda: f"127.0.0.1:{free_port()}",
        "name": lambda: f"localhost:{free_port()}",
        "port": lambda: f":{free_port()}",
        "star": lambda: f"*:{free_port()}",
        "ipv6": lambda: f"[::1]:{free_port()}",
        "unix": lambda: str(directory / "app.sock"),
        "relative": lambda: "app.sock",
        "abstract": abstract,
    }[form]()


def reached(form: str, address: str, directory) -> str:
    """How a client reaches it."""
    if form in ("name", "star"):
        return f"127.0.0.1:{address.rsplit(':', 1)[1]}"
    return str(directory / address) if form == "relative" else address


def reachable(address: str) -> bool:
    """Whether a connection is accepted."""
    try:
        connect(address).close()
    except OSError:
        return False
    return True


@pytest.mark.only_rwsgi(why="uWSGI knows not all of them")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("option", ["--http", "--http-socket", "--socket"])
def test_it_serves_on(serve, tmp_path, option, form):
    (tmp_path / "foobar.py").write_text("def application(e, s):\n    s('200 OK', [])\n    return [b'here']\n")
    address = address_of(form, tmp_path)
    at = reached(form, address, tmp_path)
    server = serve.start(option, address, "--wsgi-file", "foobar.py", cwd=tmp_path)
    # The system lists a relative name as it was given, so that only connecting tells.
    server.listens[:] = [] if form == "relative" else [at]
    server.wait_ready()
    until(lambda: reachable(at), f"{at} answers", context=server.log)
    answer = (uwsgi if option == "--socket" else http).get(at, "/")
    assert (answer.status, answer.body) == (200, b"here")
    if form in ("unix", "relative"):
        assert stat.S_ISSOCK(os.stat(at).st_mode)


@pytest.mark.only_rwsgi(why="uWSGI's http router serves its first socket alone")
def test_several_of_each_at_once(serve, tmp_path, stats_at):
    sockets = {
        "--http": [tcp(), str(tmp_path / "router.sock"), abstract()],
        "--http-socket": [tcp(), f"[::1]:{free_port()}", str(tmp_path / "http.sock"), abstract()],
        "--socket": [tcp(), str(tmp_path / "uwsgi.sock"), abstract()],
    }
    options = [part for option, addresses in sockets.items() for address in addresses for part in (option, address)]
    server = serve(*options, "--wsgi-file", "foobar.py", "--processes", 2, "--threads", 2, "--stats", stats_at)
    for option, addresses in sockets.items():
        for address in addresses:
            answer = (uwsgi if option == "--socket" else http).get(address, "/")
            assert (answer.status, answer.body) == (200, b"Hello World"), address
    named = {(entry["name"], entry["proto"]) for entry in server.stats()["sockets"]}
    for option, addresses in sockets.items():
        for address in addresses:
            assert (address, "uwsgi" if option == "--socket" else "http") in named


def test_a_port_alone_is_reached_from_everywhere(serve):
    port = free_port()
    serve("--http-socket", f":{port}", "--wsgi-file", "foobar.py")
    for host in ("127.0.0.1", "127.1.2.3"):
        with connect(f"{host}:{port}"):
            pass


@pytest.mark.parametrize("option", ["--http", "--http-socket"])
def test_a_client_of_ipv4_on_a_socket_for_both_is_told_by_its_own_address(serve, option):
    if option == "--http" and serve.program.is_uwsgi:
        pytest.skip("uWSGI's http router tells ::ffff:127.0.0.1")
    port = free_port()
    serve(option, f"[::]:{port}", "--wsgi-file", "echo.py")
    for host in ("127.0.0.1", "[::1]"):
        seen = json.loads(http.get(f"{host}:{port}", "/").body)
        assert seen["REMOTE_ADDR"] == host.strip("[]")


@pytest.mark.only_rwsgi(why="uWSGI's is 100")
def test_listen_sets_the_backlog(serve, address, stats_at):
    server = serve("--http-socket", address, "--wsgi-file", "foobar.py", "--listen", 77, "--stats", stats_at)
    assert server.stats()["sockets"][0]["max_queue"] == 77
