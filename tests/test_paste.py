"""Applications that PasteDeploy or the configuration itself makes, and what Python is told of them."""

from __future__ import annotations

import json
import subprocess

import pytest

from rig import http
from rig.waiting import until

APP = """
import json, logging, os, sys

def make(global_config, **settings):
    def application(environ, start_response):
        logging.getLogger("paste.app").info("served %s", environ["PATH_INFO"])
        start_response("200 OK", [])
        seen = {"settings": settings, "here": global_config["here"], "argv": sys.argv, "optimize": sys.flags.optimize,
                "inherited": os.environ.get("PYTHONOPTIMIZE")}
        return [json.dumps(seen).encode()]
    return application
"""
INI = """
[uwsgi]
http-socket = {address}
pythonpath = {directory}

[app:main]
use = call:pasted:make
greeting = hello

[app:second]
use = call:pasted:make
greeting = salut

[loggers]
keys = root
[handlers]
keys = file
[formatters]
keys = plain
[logger_root]
level = INFO
handlers = file
[handler_file]
class = FileHandler
args = ('%(here)s/app.log',)
formatter = plain
[formatter_plain]
format = %(message)s
"""


@pytest.fixture
def ini(tmp_path, address):
    (tmp_path / "pasted.py").write_text(APP)
    file = tmp_path / "app.ini"
    file.write_text(INI.format(address=address, directory=tmp_path))
    return file


def seen(address: str) -> dict:
    answer = http.get(address, "/page")
    assert answer.status == 200, answer
    return json.loads(answer.body)


@pytest.mark.parametrize(("part", "greeting"), [("", "hello"), ("#second", "salut")])
def test_paste_names_the_application(serve, address, ini, tmp_path, part, greeting):
    serve("--http-socket", address, "--paste", f"config:{ini}{part}", "--pythonpath", tmp_path)
    assert seen(address)["settings"] == {"greeting": greeting}
    assert seen(address)["here"] == str(tmp_path)
    assert not (tmp_path / "app.log").exists()


def test_ini_paste_reads_the_server_s_options_too(serve, address, ini):
    serve("--ini-paste", ini, listens=[address])
    assert seen(address)["settings"] == {"greeting": "hello"}


@pytest.mark.only_rwsgi(why="uWSGI gives fileConfig no 'here'")
def test_logging_is_set_up_from_the_same_file(serve, address, ini, tmp_path):
    serve("--ini-paste-logged", ini, listens=[address])
    seen(address)
    until(lambda: "served /page" in (tmp_path / "app.log").read_text(), "the application's log line")


@pytest.mark.only_rwsgi(why="it is a warning's words")
def test_a_file_that_sets_up_no_logging_serves_all_the_same(serve, address, ini, tmp_path):
    ini.write_text(ini.read_text().partition("[loggers]")[0])
    server = serve("--ini-paste-logged", ini, listens=[address])
    seen(address)
    server.logged("does not set up logging")


def test_arguments_and_optimization_are_python_s(serve, address, ini, tmp_path):
    serve(
        *("--http-socket", address, "--paste", f"config:{ini}", "--pythonpath", tmp_path),
        *("--pyargv", "--config-file /etc/app.conf", "-O", 2),
    )
    found = seen(address)
    assert found["argv"] == ["uwsgi", "--config-file", "/etc/app.conf"]
    assert (found["optimize"], found["inherited"]) == (2, None)


def test_eval_defines_the_application(serve, address):
    code = "application = lambda environ, start_response: (start_response('200 OK', []), [b'from code'])[1]"
    serve("--http-socket", address, "--eval", code)
    assert http.get(address, "/").body == b"from code"


@pytest.mark.only_rwsgi(why="uWSGI's words are others")
def test_a_package_that_is_missing_is_named(serve, address):
    server = serve.run("--http-socket", address, "--pecan", "config.py")
    assert "no application: pecan needs the package pecan: pip install pecan" in server.log()


def test_modules_have_other_names(serve, address, tmp_path):
    (tmp_path / "real.py").write_text("NAME = 'real'\n")
    (tmp_path / "page.py").write_text(
        "import first, second\n"
        "def application(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [f'{first.NAME} {second.NAME} {second.__name__}'.encode()]\n"
    )
    serve(
        *("--http-socket", address, "--wsgi-file", "page.py", "--pythonpath", tmp_path),
        *("--pymodule-alias", "first=real", "--post-pymodule-alias", f"second={tmp_path}/real.py"),
        cwd=tmp_path,
    )
    assert http.get(address, "/").body == b"real real second"


@pytest.mark.only_rwsgi(why="uWSGI answers without a log line of the application's")
def test_without_an_application_static_files_are_served_and_all_else_is_an_error(serve, address, tmp_path):
    (tmp_path / "page.txt").write_text("static\n")
    server = serve("--http-socket", address, "--check-static", tmp_path)
    assert http.get(address, "/page.txt").body == b"static\n"
    answer = http.get(address, "/other")
    assert (answer.status, answer.body) == (500, b"Internal Server Error")
    server.logged("there is no application")
    server.logged("no application to answer GET '/other'")
    needed = serve.run("--http-socket", address, "--check-static", tmp_path, "--need-app")
    assert "no application to serve" in needed.log()


@pytest.mark.parametrize(
    ("arguments", "status", "printed"),
    [
        (["--set", "x=1", "--set", "y=%(x)2", "--get", "y"], 0, "12\n"),
        (["--exit=4"], 4, ""),
        (["--exit"], 1, ""),
    ],
    ids=str,
)
def test_scripts_ask_the_program(program, arguments, status, printed):
    done = subprocess.run([program.path, *arguments], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (status, printed)


def test_the_configuration_is_shown_and_served(serve, address, tmp_path):
    file = tmp_path / "site.ini"
    file.write_text(f"[uwsgi]\nbase = {tmp_path}\nhttp-socket = {address}\nwsgi-file = foobar.py\nprint = base is %(base)\n")
    server = serve("--show-config", file, listens=[address])
    assert http.get(address, "/").status == 200
    for line in (";uWSGI instance configuration", f"base = {tmp_path}", ";end of configuration", f"base is {tmp_path}"):
        assert line in server.log().splitlines()


def test_what_a_stats_address_says_is_read(serve, program, address, stats_at):
    serve("--http-socket", address, "--wsgi-file", "foobar.py", "--stats", stats_at)
    done = subprocess.run([program.path, "--connect-and-read", stats_at], capture_output=True, text=True, timeout=30)
    document = json.loads(done.stdout + done.stderr)
    assert (done.returncode, len(document["workers"])) == (0, 1)
