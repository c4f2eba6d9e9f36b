"""uwsgi.opt holds what is in force: monitoring agents look there for enable-threads, lazy-apps and single-interpreter."""

from __future__ import annotations

import json

import pytest

from rig import http

PAGE = """
import json, uwsgi

def application(environ, start_response):
    start_response("200 OK", [])
    plain = {str(name): value if value is True else value.decode() for name, value in uwsgi.opt.items()}
    mode = getattr(uwsgi, "mode", b"").decode()
    return [json.dumps({"opt": plain, "threads": uwsgi.cores if hasattr(uwsgi, "cores") else 0, "mode": mode}).encode()]
"""


def found(address: str) -> dict:
    return json.loads(http.get(address, "/").body)


def test_what_was_given_is_there_as_it_was_given(serve, address, tmp_path):
    (tmp_path / "page.py").write_text(PAGE)
    file = tmp_path / "site.ini"
    file.write_text(f"[uwsgi]\nhttp-socket = {address}\nwsgi-file = page.py\nlazy-apps = true\nkey = %(lazy-apps)!\nmode = blue\n")
    serve("--enable-threads", "--single-interpreter", "--master", file, cwd=tmp_path, listens=[address])
    seen = found(address)
    given = {"enable-threads": True, "single-interpreter": True, "master": True, "lazy-apps": "true", "key": "true!"}
    assert {name: seen["opt"].get(name) for name in given} == given
    assert seen["mode"] == "blue"


@pytest.mark.only_rwsgi(why="it is always so here alone")
def test_what_is_always_so_is_there_and_what_is_not_is_not(serve, address, tmp_path):
    (tmp_path / "page.py").write_text(PAGE)
    server = serve(
        *("--http-socket", address, "--wsgi-file", "page.py", "--gevent", 20, "--gevent-monkey-patch"), cwd=tmp_path
    )
    seen = found(address)
    always = ("enable-threads", "single-interpreter", "master", "py-call-uwsgi-fork-hooks")
    assert [seen["opt"].get(name) for name in always] == [True] * len(always)
    # An application that replaces parts of the standard library for gevent's sake looks for it there.
    assert "gevent" not in seen["opt"]
    assert (seen["opt"]["threads"], seen["threads"]) == ("20", 20)
    server.logged("gevent = 20: each worker gets 20 threads instead of an event loop")


@pytest.mark.only_rwsgi(why="uWSGI serves them in an event loop")
def test_requests_that_wait_are_served_side_by_side(serve, address, tmp_path):
    (tmp_path / "page.py").write_text(
        "import threading\n"
        "together = threading.Barrier(50)\n"
        "def application(environ, start_response):\n"
        "    together.wait(30)\n"
        "    start_response('200 OK', [])\n"
        "    return [b'together']\n"
    )
    from concurrent.futures import ThreadPoolExecutor

    serve("--http-socket", address, "--wsgi-file", "page.py", "--gevent", 50, cwd=tmp_path)
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: http.get(address, "/").status, range(50)))
    assert answers == [200] * 50
