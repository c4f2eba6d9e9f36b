"""The package's processes that run no Python start none, and nothing of how that is done is seen by anybody else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rig import http

pytestmark = pytest.mark.only_rwsgi(why="this is how rwsgi's package starts")

SITE = """
import json, os

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"environment": dict(os.environ)}).encode()]
"""
TOLD = "RWSGI_WITHOUT_PYTHON"


@pytest.fixture
def site(tmp_path) -> Path:
    (tmp_path / "site_of_test.py").write_text(SITE)
    return tmp_path


def environment_of_a_worker(address: str) -> dict[str, str]:
    return json.loads(http.get(address, "/").body)["environment"]


def a_library() -> str:
    """One that is loaded everywhere anyway."""
    maps = Path("/proc/self/maps").read_text()
    return next(re.finditer(r"/\S*/libc[.-]\S*|/\S*/ld-musl-\S*", maps))[0]


def test_the_command_and_the_fork_server_alone_start_python(serve, address, site):
    # Python then says of each module that it imports how long that took.
    server = serve("--http", address, "--module", "site_of_test", cwd=site, env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert http.get(address, "/").status == 200
    assert len(re.findall(r"\| encodings$", server.log(), re.MULTILINE)) == 2
    assert "| rwsgi._rwsgi" not in server.log()
    # Nor does the server itself bring modules that a hello does not need.
    assert not re.search(r"\| +(random|tempfile|unicodedata)$", server.log(), re.MULTILINE)


def test_processes_keep_their_command_line(serve, program, address, site):
    arguments = ["--http-socket", address, "--module", "site_of_test"]
    server = serve(*arguments, cwd=site)
    shown = Path(f"/proc/{server.pid}/cmdline").read_bytes().decode().rstrip("\0").split("\0")
    assert shown[-len(arguments) - 1 :] == [program.path, *arguments]


def test_what_is_preloaded_stays_so_and_nothing_is_added(serve, address, site):
    serve("--http-socket", address, "--module", "site_of_test", cwd=site, env={"LD_PRELOAD": a_library()})
    told = environment_of_a_worker(address)
    assert told["LD_PRELOAD"] == a_library() and TOLD not in told


def test_nothing_is_preloaded_where_nothing_was(serve, address, site):
    serve("--http-socket", address, "--module", "site_of_test", cwd=site)
    assert not {"LD_PRELOAD", TOLD} & set(environment_of_a_worker(address))


def test_where_the_system_does_not_preload_it_python_enters_the_server(serve, address, site):
    # As a process finds it whose program was executed with the variables, by a system that ignored one of them.
    server = serve("--http", address, "--module", "site_of_test", cwd=site, env={TOLD: "1:1:/nowhere"})
    assert TOLD not in environment_of_a_worker(address)
    server.send(15)
    assert server.wait_exit() == 0


@pytest.mark.parametrize("directory", ["plain", "with a blank", "with:colon"])
def test_the_package_works_in_any_directory(tmp_path, directory):
    package = Path(subprocess.run(
        [sys.executable, "-c", "import rwsgi; print(rwsgi.__file__)"], capture_output=True, text=True, check=True, cwd=tmp_path,
    ).stdout.strip()).parent  # fmt: skip
    shutil.copytree(package, tmp_path / directory / "rwsgi")
    command = tmp_path / directory / "bin" / "rwsgi"
    command.parent.mkdir()
    command.write_text(f"import sys\nsys.path.insert(0, {str(tmp_path / directory)!r})\nfrom rwsgi import main\nsys.exit(main())\n")
    ran = subprocess.run([sys.executable, command, "--version"], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", ran.stdout)


def test_a_program_that_calls_the_server_is_not_replaced(tmp_path):
    program = tmp_path / "mine.py"
    program.write_text("import atexit, rwsgi\natexit.register(print, 'and I')\nrwsgi.main()\n")
    ran = subprocess.run([sys.executable, program, "--version"], capture_output=True, text=True)
    assert ran.returncode == 0 and ran.stdout.endswith("\nand I\n"), ran.stdout + ran.stderr
