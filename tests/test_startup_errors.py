"""What cannot start says why in one clear line and ends with a status that scripts can trust."""

from __future__ import annotations

import re
import socket
import subprocess
import sys

import pytest

from rig import http

pytestmark = pytest.mark.only_rwsgi(why="uWSGI words its errors, and forgives others")

NO_APPLICATION = 22


def said(server) -> list[str]:
    """What it printed, without empty lines."""
    return [line for line in server.log().splitlines() if line.strip()]


@pytest.mark.parametrize("mode", [[], ["--lazy-apps"], ["--need-app"], ["--processes", 3, "--threads", 2]], ids=str)
@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import nothing_of_this_name\n", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("def application(:\n", "SyntaxError"),
        ("raise RuntimeError('at import')\n", "RuntimeError: at import"),
        ("raise SystemExit(3)\n", "SystemExit"),
    ],
    ids=["import", "syntax", "raises", "exits"],
)
def test_an_application_that_fails_to_load_ends_the_server(serve, tmp_path, address, source, error, mode):
    (tmp_path / "broken.py").write_text(source)
    server = serve.run("--http-socket", address, "--wsgi-file", "broken.py", *mode, cwd=tmp_path)
    assert server.process.returncode == NO_APPLICATION, server.log()
    assert error in server.log()
    assert "broken.py" in server.log()
    assert server.log().count("Traceback (most recent call last)") <= 1 or mode == ["--lazy-apps"]
    with pytest.raises(OSError):
        http.get(address, "/")


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--wsgi-file", "callable_missing.py"], ["callable_missing.py", "application"]),
        (["--wsgi-file", "callable_missing.py", "--callable", "nope"], ["nope"]),
        (["--wsgi-file", "not_callable.py"], ["application"]),
        (["--module", "no_such_module_here"], ["no_such_module_here"]),
        (["--module", "callable_missing:nope"], ["nope"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else value,
)
def test_an_application_that_is_not_there_ends_the_server(serve, tmp_path, address, arguments, names):
    (tmp_path / "callable_missing.py").write_text("other = 1\n")
    (tmp_path / "not_callable.py").write_text("application = 1\n")
    server = serve.run("--http-socket", address, *arguments, cwd=tmp_path)
    assert server.process.returncode == NO_APPLICATION, server.log()
    for name in names:
        assert name in server.log()


def test_a_server_without_an_application_does_not_run(serve, address):
    server = serve.run("--http-socket", address)
    assert server.process.returncode not in (0, None)
    assert re.search(r"--wsgi-file|--module", server.log())


@pytest.mark.parametrize("option", ["--http", "--http-socket", "--socket", "--stats"])
def test_a_port_in_use_is_named_with_its_option(serve, address, option):
    free = [] if option != "--stats" else ["--http-socket", f"127.0.0.1:{int(address.split(':')[1])}"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = serve.run(option, f"127.0.0.1:{port}", *free, "--wsgi-file", "foobar.py")
    assert server.process.returncode not in (0, None)
    line = next(line for line in said(server) if str(port) in line)
    assert option.lstrip("-") in line, line
    assert re.search("in use", line), line


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--procesess", "4"], ["--procesess", "--processes"]),
        (["--http-sokcet", ":1"], ["--http-sokcet", "--http-socket"]),
        (["--no-such-thing-anywhere"], ["--no-such-thing-anywhere"]),
        (["--processes", "four"], ["processes", "four"]),
        (["--processes", "-1"], ["processes", "-1"]),
        (["--threads", "-1"], ["threads", "-1"]),
        (["--http-socket", ":x"], ["http-socket", ":x"]),
        (["--http-socket", "127.0.0.1:http"], ["http-socket", "127.0.0.1:http"]),
        (["--stats", "::1:80"], ["stats", "::1:80"]),
        (["--chdir", "/no/such/place"], ["chdir", "/no/such/place"]),
        (["--home", "/no/such/place"], ["home", "/no/such/place"]),
        (["--ini", "/no/such/file.ini"], ["/no/such/file.ini"]),
        (["/no/such/file.ini"], ["/no/such/file.ini"]),
        (["--processes"], ["processes"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else value,
)
def test_a_mistake_on_the_command_line_is_told_in_one_line(serve, address, arguments, expected):
    socket_needed = [] if "--http-socket" in arguments else ["--http-socket", address]
    server = serve.run(*socket_needed, "--wsgi-file", "foobar.py", *arguments)
    assert server.process.returncode not in (0, None, NO_APPLICATION), server.log()
    telling = [line for line in said(server) if all(part in line for part in expected)]
    assert telling, server.log()
    assert "panicked" not in server.log() and "Traceback" not in server.log()
    assert len(said(server)) <= 5, server.log()


def test_a_missing_wsgi_file_is_told_in_one_line(serve, address):
    server = serve.run("--http-socket", address, "--wsgi-file", "no_such_file.py")
    assert server.process.returncode not in (0, None)
    assert any("no_such_file.py" in line for line in said(server))
    assert "panicked" not in server.log()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[uwsgi]\nprocesses = many\n", ["processes", "many", "bad.ini", "2"]),
        ("[other]\nprocesses = 1\n", ["bad.ini"]),
        ("[uwsgi\nprocesses = 1\n", ["bad.ini"]),
    ],
    ids=["value", "section", "syntax"],
)
def test_a_mistake_in_a_file_is_told_with_its_place(serve, tmp_path, address, text, expected):
    (tmp_path / "bad.ini").write_text(text)
    server = serve.run("--http-socket", address, "--wsgi-file", "foobar.py", "--ini", tmp_path / "bad.ini")
    assert server.process.returncode not in (0, None), server.log()
    assert any(all(part in line for part in expected) for line in said(server)), server.log()


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["--python-version"]], ids=lambda value: value[0])
def test_questions_are_answered_on_standard_output_with_success(program, arguments):
    answer = subprocess.run([program.path, *arguments], capture_output=True, text=True, timeout=60)
    assert (answer.returncode, answer.stderr) == (0, "")
    expected = {
        "--help": ["--http-socket", "--processes", "--stats", "--wsgi-file"],
        "--version": ["0.", "."],
        "--python-version": [".".join(map(str, sys.version_info[:3]))],
    }[arguments[0]]
    assert all(part in answer.stdout for part in expected), answer.stdout
