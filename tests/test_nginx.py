"""Django, Flask and Bottle behind nginx: over a unix socket, over TCP and over HTTP."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from rig import http
from rig.addresses import tcp
from rig.nginx import Nginx
from rig.waiting import until

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
APPLICATIONS = {
    "django": ["--module", "demo.wsgi"],
    "flask": ["--wsgi-file", "app.py", "--callable", "app"],
    "bottle": ["--wsgi-file", "app.py"],
}
WAYS = ("uwsgi-unix", "uwsgi-tcp", "proxy")


@pytest.fixture(scope="module", params=APPLICATIONS)
def stack(request, serve_module, tmp_path_factory):
    """One server of an application on three sockets, and one nginx with a site before each."""
    name = request.param
    directory = tmp_path_factory.mktemp(name)
    unix, uwsgi, plain = str(directory / "app.sock"), tcp(), tcp()
    server = serve_module(
        *("--socket", unix, "--socket", uwsgi, "--http-socket", plain, *APPLICATIONS[name]),
        *("--master", "--processes", 4, "--threads", 2),
        cwd=EXAMPLES / name,
    )
    nginx = Nginx(
        directory,
        {"uwsgi-unix": ("/run/rwsgi/app.sock", unix), "uwsgi-tcp": ("127.0.0.1:3031", uwsgi), "proxy": ("127.0.0.1:8000", plain)},
    )
    yield name, server, nginx
    nginx.stop()


@pytest.fixture(params=WAYS)
def way(request, stack):
    name, server, nginx = stack
    return name, server, nginx.addresses[request.param]


def test_a_page_is_served(way):
    name, _, address = way
    answer = http.get(address, "/")
    assert (answer.status, answer.text) == (200, f"hello from {name}\n")


def test_an_upload_arrives_whole(way, tmp_path):
    _, _, address = way
    data = os.urandom(6_000_011)
    (tmp_path / "file.bin").write_bytes(data)
    done = subprocess.run(
        ["curl", "-sS", "--max-time", "60", "-F", f"file=@{tmp_path}/file.bin", f"http://{address}/upload"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    expected = {"name": "file.bin", "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert json.loads(done.stdout) == expected


def test_a_streamed_response_arrives_whole(way):
    _, _, address = way
    answer = http.get(address, "/stream?lines=50000")
    assert answer.status == 200
    assert answer.body == b"".join(b"line %d\n" % n for n in range(50000))


def test_an_error_of_the_application_is_an_error_for_the_client(way):
    _, server, address = way
    assert http.get(address, "/error").status == 500
    until(lambda: "the view failed" in server.log(), "the traceback is logged", context=server.log)


def test_the_application_s_own_errors_pass(way):
    _, _, address = way
    answer = http.get(address, "/missing")
    assert (answer.status, answer.text) == (404, "nothing here\n")


@pytest.mark.only_rwsgi(why="uWSGI closes the connection, which is a 502 of nginx's")
def test_a_request_past_harakiri_is_a_504(serve, tmp_path):
    unix, uwsgi, plain = str(tmp_path / "app.sock"), tcp(), tcp()
    serve(
        *("--socket", unix, "--socket", uwsgi, "--http-socket", plain, "--wsgi-file", "worklife.py", "--harakiri", 5),
        *("--processes", 3, "--disable-logging"),
    )
    nginx = Nginx(
        tmp_path,
        {"uwsgi-unix": ("/run/rwsgi/app.sock", unix), "uwsgi-tcp": ("127.0.0.1:3031", uwsgi), "proxy": ("127.0.0.1:8000", plain)},
    )
    try:
        for address in nginx.addresses.values():
            assert http.get(address, f"/?until={tmp_path / 'never'}").status == 504, nginx.log()
            assert http.get(address, "/").status == 200
    finally:
        nginx.stop()


def test_head_has_no_body(way):
    _, _, address = way
    assert http.head_of(address, "/").status == 200


def test_many_requests_on_a_connection_are_all_answered(way):
    name, _, address = way
    with http.Connection(address) as connection:
        for _ in range(200):
            assert connection.request("GET", "/").text == f"hello from {name}\n"


@pytest.mark.only_rwsgi(why="uWSGI resets the connection when a body was not read")
def test_a_slow_upload_holds_nobody_up(way):
    name, _, address = way
    body = b"x" * 4000
    slow = [http.Connection(address) for _ in range(16)]
    for connection in slow:
        connection.send(http.head("POST", "/missing", body=body) + body[:100])
    assert http.get(address, "/").text == f"hello from {name}\n"
    for connection in slow:
        connection.send(body[100:])
        assert connection.response().status in (403, 404, 405)
        connection.close()
