"""docs/python-api.md: its signatures are the module's, and its sessions and examples run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from rig import http
from rig.addresses import tcp
from rig.server import Server
from rig.waiting import until
from rig.websocket import BINARY, TEXT, WebSocket

pytestmark = pytest.mark.only_rwsgi(why="it is about rwsgi's module")

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "python-api.md").read_text()
WRITTEN = PAGE.split("<!-- Made from")[0]
FILES = dict(re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```$', WRITTEN, re.MULTILINE | re.DOTALL))
SESSIONS = re.findall(r"^```pycon\n(.*?)^```$", WRITTEN, re.MULTILINE | re.DOTALL)

# Runs a session in a request, in the worker that serves it, and answers with what is wrong with it.
SESSION = '''
import doctest, os, socket, time

import uwsgi

def wait_until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "not within 30 s"
        time.sleep(0.01)

def run(text, start_response):
    known = {"uwsgi": uwsgi, "os": os, "socket": socket, "wait_until": wait_until, "start_response": start_response}
    test = doctest.DocTestParser().get_doctest(text, known, "session", None, 0)
    wrong = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=wrong.append)
    with open("outcome", "w") as file:
        file.write("".join(wrong) or "as shown")
    return "".join(wrong)
'''

INSPECT = '''
import inspect, json

import uwsgi

def application(environ, start_response):
    found = {}
    for name in dir(uwsgi):
        if not name.startswith("_"):
            value = getattr(uwsgi, name)
            found[name] = str(inspect.signature(value)) if callable(value) else None
    start_response("200 OK", [])
    return [json.dumps(found).encode()]
'''


def test_each_name_of_the_module_is_there_with_its_signature(serve, address, tmp_path):
    (tmp_path / "look.py").write_text(INSPECT)
    (tmp_path / "jobs").mkdir()
    serve(
        *("--http-socket", address, "--wsgi-file", "look.py", "--spooler", "jobs", "--mode", "test", "--pidfile", tmp_path / "pid"), cwd=tmp_path
    )
    there = json.loads(http.get(address, "/").body)
    rows = re.findall(r"^\| `(\w+)(\(.*?\))?` \|", WRITTEN, re.MULTILINE)
    assert len(rows) == len({name for name, _ in rows}), "a name that is there twice"
    # A number below 0 is no text that inspect can read.
    plain = {
        name: signature and signature.replace(", /", "").replace("(/", "(").replace("Ellipsis", "-1") for name, signature in there.items()
    }  # fmt: skip
    assert dict(rows).keys() == plain.keys()
    assert {name: signature or None for name, signature in rows} == plain


def test_each_function_has_an_example():
    examples = "\n".join([*SESSIONS, *FILES.values()])
    names = [name for name, _ in re.findall(r"^\| `(\w+)(\(.*?\))?` \|", WRITTEN, re.MULTILINE)]
    # What ends or reloads the server is in no session.
    assert [name for name in names if f"uwsgi.{name}" not in examples] == ["reload", "stop"]
    assert "`uwsgi.reload()` and `uwsgi.stop()`" in WRITTEN


@pytest.fixture(scope="module")
def site(serve_module, tmp_path_factory) -> tuple[Server, str, Path]:
    """The page's server, in a directory with the page's files."""
    directory, address = tmp_path_factory.mktemp("api"), tcp()
    for name, text in FILES.items():
        (directory / name).write_text(text.replace("127.0.0.1:8000", address))
    (directory / "session.py").write_text(SESSION)
    (directory / "jobs").mkdir()
    server = serve_module(directory / "api.ini", cwd=directory, listens=[address])
    return server, address, directory


@pytest.mark.parametrize("session", SESSIONS, ids=lambda session: re.search(r"uwsgi\.(\w+)", session)[1])
def test_the_session_is_what_a_worker_does(site, session):
    server, address, directory = site
    (directory / "outcome").unlink(missing_ok=True)
    http.request(address, "POST", "/session", body=session.encode())
    until((directory / "outcome").exists, "it has run", context=(directory / "server.log").read_text)
    outcome = until((directory / "outcome").read_text, "it has said what is wrong")
    assert outcome == "as shown", outcome


def test_a_request_can_reload_and_stop_the_server(serve, tmp_path):
    address = tcp()
    (tmp_path / "ends.py").write_text(
        "import uwsgi\n\ndef application(environ, start_response):\n    start_response('200 OK', [])\n"
        "    return [str(uwsgi.stop() if 'stop' in environ['PATH_INFO'] else uwsgi.reload()).encode()]\n"
    )
    server = serve("--http-socket", address, "--wsgi-file", "ends.py", cwd=tmp_path)
    assert http.get(address, "/").text == "True"
    server.logged("generation 2 takes over")
    assert http.get(address, "/stop").text == "True"
    assert server.wait_exit() == 0


def test_the_timer_and_the_file_of_the_page_run(site):
    _, address, directory = site
    assert re.fullmatch(r"worker [12] of 2", http.get(address, "/").text)
    assert http.get(address, "/mail").text == "queued"
    session = '>>> wait_until(lambda: uwsgi.cache_num("ticks", "counts") > 0 and uwsgi.cache_get("mail") == b"alice@example.com")\n'
    test_the_session_is_what_a_worker_does(site, session)


def test_the_echo_of_the_page(serve, tmp_path):
    address = tcp()
    (tmp_path / "echo.py").write_text(FILES["echo.py"])
    serve("--http-socket", address, "--wsgi-file", "echo.py", cwd=tmp_path)
    with WebSocket(address) as client:
        assert client.receive() == (BINARY, b"welcome")
        client.send(b"hello")
        assert client.receive() == (TEXT, b"hello")
