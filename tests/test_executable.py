"""The plain executable, which embeds Python, is the same server as the package's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rig import http
from rig.server import Program, Servers

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.only_rwsgi(why="this is rwsgi's")


@pytest.fixture(scope="module")
def executable() -> str:
    """Built without optimization, which is fast and the same code."""
    build = subprocess.run(
        ["cargo", "build", "--quiet", "-p", "rwsgi", "--bin", "rwsgi", "--message-format=json"],
        cwd=ROOT, env={**os.environ, "PYO3_PYTHON": sys.executable}, capture_output=True, text=True,
    )  # fmt: skip
    assert build.returncode == 0, build.stderr
    made = [json.loads(line) for line in build.stdout.splitlines() if line.startswith("{")]
    return next(message["executable"] for message in made if message.get("executable"))


@pytest.fixture
def serve_executable(executable, tmp_path):
    servers = Servers(Program(executable), tmp_path)
    yield servers
    servers.stop_all()


@pytest.mark.timeout(1200)
def test_it_says_the_same_version(executable, program):
    for question in ("--version", "--python-version"):
        said = [subprocess.run([path, question], capture_output=True, text=True, timeout=60) for path in (executable, program.path)]
        assert said[0].stdout == said[1].stdout
        assert said[0].returncode == 0


def test_it_serves_the_same_hello(serve_executable, address, stats_at):
    server = serve_executable(
        *("--http", address, "--wsgi-file", "foobar.py", "--master", "--processes", 2, "--threads", 2, "--stats", stats_at)
    )
    answer = http.get(address, "/")
    assert (answer.status, answer.body, answer.header("Content-Type")) == (200, b"Hello World", "text/html")
    assert len(server.wait_workers(2)["workers"]) == 2


def test_it_finds_the_packages_of_a_virtual_environment(serve_executable, address):
    serve_executable("--http-socket", address, "--wsgi-file", "myflaskapp.py", "--callable", "app", "--home", sys.prefix)
    assert http.get(address, "/").text == "<span style='color:red'>I am app 1</span>"


def test_a_broken_application_ends_it_with_22(serve_executable, tmp_path, address):
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
    server = serve_executable.run("--http-socket", address, "--wsgi-file", "broken.py", cwd=tmp_path)
    assert server.process.returncode == 22, server.log()


def test_a_long_name_leaves_the_environment_alone(serve_executable, address):
    serve_executable("--http-socket", address, "--wsgi-file", "long_name.py", env={"LAST": "x" * 500})
    told = json.loads(http.get(address, "/").body)
    assert told["is_untouched"] and told["last"] == "x" * 500
    assert len(told["name"]) >= 512 and set(told["name"]) == {"n"}
