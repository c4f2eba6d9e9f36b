"""The command lines that people know, with one word changed: each serves as its readers expect."""

from __future__ import annotations

import pytest

from rig import http, stats, uwsgi
from rig.addresses import free_port

HELLO = b"Hello World"


def test_http_and_a_file(serve):
    port = free_port()
    serve("--http", f":{port}", "--wsgi-file", "foobar.py")
    answer = http.get(f"127.0.0.1:{port}", "/")
    assert (answer.status, answer.body) == (200, HELLO)
    assert answer.header("Content-Type") == "text/html"


def test_http_with_a_pool_and_stats(serve, stats_at):
    port = free_port()
    server = serve(
        *("--http", f":{port}", "--wsgi-file", "foobar.py", "--master", "--processes", 4, "--threads", 2),
        *("--stats", stats_at),
    )
    assert http.get(f"127.0.0.1:{port}", "/").body == HELLO
    document = server.wait_workers(4)
    assert [len(worker["cores"]) for worker in document["workers"]] == [2, 2, 2, 2]
    # A client has its response before the request is counted.
    server.wait_stats(lambda document: stats.total(document, "requests") == 1, "it is counted")


def test_http_socket_with_a_pool_and_stats(serve, address, stats_at):
    server = serve(
        *("--http-socket", address, "--wsgi-file", "foobar.py", "--master", "--processes", 4, "--threads", 2),
        *("--stats", stats_at),
    )
    assert http.get(address, "/").body == HELLO
    assert [worker["id"] for worker in server.wait_workers(4)["workers"]] == [1, 2, 3, 4]


def test_socket_with_a_flask_callable(serve, address, stats_at):
    server = serve(
        *("--socket", address, "--wsgi-file", "myflaskapp.py", "--callable", "app", "--processes", 4, "--threads", 2),
        *("--stats", stats_at),
    )
    answer = uwsgi.get(address, "/")
    assert (answer.status, answer.text) == (200, "<span style='color:red'>I am app 1</span>")
    server.wait_stats(lambda document: stats.total(document, "requests") == 1, "it is counted")


def test_module_from_the_working_directory(serve):
    port = free_port()
    serve("--http", f":{port}", "--module", "mysite.wsgi")
    assert http.get(f"127.0.0.1:{port}", "/hello").body == b"hello from django"


def test_module_with_callable_and_chdir(serve, tmp_path):
    port = free_port()
    from rig.server import APPS

    serve("--http", f":{port}", "--module", "mysite.wsgi:application", "--chdir", APPS, cwd=tmp_path)
    assert http.get(f"127.0.0.1:{port}", "/hello").body == b"hello from django"


@pytest.mark.parametrize("form", [["{file}"], ["--ini", "{file}"]], ids=["bare", "--ini"])
def test_an_ini_file(serve, tmp_path, address, form):
    ini = tmp_path / "yourfile.ini"
    ini.write_text(f"[uwsgi]\nhttp-socket = {address}\nwsgi-file = foobar.py\nprocesses = 2\nthreads = 2\nmaster = true\n")
    serve(*[part.format(file=ini) for part in form], listens=[address])
    assert http.get(address, "/").body == HELLO
