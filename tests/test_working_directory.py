"""Where the application runs, and which application a proxy's SCRIPT_NAME asks for; what caches begin with."""

from __future__ import annotations

import signal

import pytest

from rig import http
from rig.http import Connection
from rig.uwsgi import packet, variables
from rig.waiting import until

WHERE = """
import os
LOADED = os.getcwd()
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{LOADED} {os.getcwd()}".encode()]
"""


@pytest.mark.parametrize("lazy", [(), ("--lazy-apps",)])
def test_workers_go_elsewhere_once_the_application_is_loaded(serve, address, tmp_path, lazy):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    (first / "where.py").write_text(WHERE)
    serve("--http-socket", address, "--master", "--chdir", first, "--chdir2", second, "--wsgi-file", "where.py", *lazy)
    assert http.get(address, "/").body.decode() == f"{first} {second}"


@pytest.mark.only_rwsgi(why="SIGHUP executes uWSGI again, which is found by its own path")
def test_a_reload_finds_its_files_where_a_link_leads_now(serve, address, tmp_path):
    """A deployment turns a link to the next release."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "site.py").write_text(
            f"def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'{name}']\n"
        )
        (tmp_path / name / "site.ini").write_text(f"[uwsgi]\nhttp-socket = {address}\nwsgi-file = site.py\nforce-cwd = {tmp_path}/current\n")
    current = tmp_path / "current"
    current.symlink_to("one")
    server = serve("--ini", "site.ini", cwd=current, listens=[address])
    assert http.get(address, "/").body == b"one"
    current.unlink()
    current.symlink_to("two")
    server.send(signal.SIGHUP)
    until(lambda: http.get(address, "/").body == b"two", "the next release serves", context=server.log)


SITE = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [NAME]
"""


@pytest.mark.parametrize(("ignore", "expected"), [((), b"shop"), (("--ignore-script-name",), b"main")])
def test_a_proxy_s_script_name_can_be_ignored(serve, address, tmp_path, ignore, expected):
    for name in ("main", "shop"):
        (tmp_path / f"{name}.py").write_text(f"NAME = b'{name}'\n{SITE}")
    serve("--socket", address, "--master", "--wsgi-file", "main.py", "--mount", "/shop=shop.py", *ignore, cwd=tmp_path)
    with Connection(address) as connection:
        connection.send(packet([*variables("GET", "/x"), ("SCRIPT_NAME", "/shop")]))
        assert connection.response().body == expected


CACHES = """
import uwsgi
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    wanted = [("a", "one"), ("a", "two"), ("b", "two"), ("text.txt", "one"), ("text.txt", "two")]
    return [repr([uwsgi.cache_get(key, cache) for key, cache in wanted]).encode()]
"""


def test_caches_begin_with_what_is_configured(serve, address, tmp_path):
    (tmp_path / "caches.py").write_text(CACHES)
    (tmp_path / "text.txt").write_text("from a file")
    serve(
        *("--http-socket", address, "--master", "--wsgi-file", "caches.py"),
        *("--cache2", "name=one,items=10,blocksize=100", "--cache2", "name=two,items=10,blocksize=100"),
        *("--add-cache-item", "a=1=2", "--add-cache-item", "two b=3", "--load-file-in-cache", "one text.txt"),
        cwd=tmp_path,
    )
    assert http.get(address, "/").body == b"[b'1=2', b'1=2', b'3', b'from a file', None]"
