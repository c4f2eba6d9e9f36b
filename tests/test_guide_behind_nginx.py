"""The guides' server behind nginx: in the background, as www-data, with the system's own Python, static files by nginx."""

from __future__ import annotations

import importlib.util
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from rig import http, processes
from rig.nginx import Nginx
from rig.server import Program, Servers
from rig.waiting import until
from test_guides import BEHIND_NGINX, Guide

pytestmark = pytest.mark.only_rwsgi(why="uWSGI calls its processes otherwise")

SYSTEM_PYTHON = "/usr/bin/python3"
SCRIPT = "#!{python}\nimport sys\nfrom rwsgi import main\nsys.exit(main())\n"
LOCATIONS = """
    location /static/ {{ alias {below}/static/; }}
    location /media/ {{ alias {below}/media/; }}
"""


def runs_as(user: str, program: str) -> bool:
    try:
        done = subprocess.run([program, "--version"], user=user, group=user, extra_groups=[], cwd="/", capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


def install(program: Program, environment: Path) -> Program:
    """The program where www-data can run it: as it is, or as a copy of its package in an environment of the system's Python."""
    subprocess.run([SYSTEM_PYTHON, "-m", "venv", "--without-pip", environment], check=True)
    if runs_as("www-data", program.path):
        return program
    package = importlib.util.find_spec("rwsgi")
    if package is not None and package.origin is not None and Path(program.path).parent == Path(sys.prefix) / "bin":
        (site,) = environment.glob("lib/python*/site-packages")
        shutil.copytree(Path(package.origin).parent, site / "rwsgi")
        script = environment / "bin" / "rwsgi"
        script.write_text(SCRIPT.format(python=environment / "bin" / "python"))
        script.chmod(0o755)
        if runs_as("www-data", str(script)):
            return Program(str(script))
    pytest.skip(f"www-data cannot run {program.path}, nor can {SYSTEM_PYTHON}: the tests' Python is another version or locked away")


def user_of(pid: int) -> int:
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Uid:"))
    real, effective, saved, files = map(int, line.split()[1:])
    assert real == effective == saved == files, line
    return real


@pytest.fixture
def guide():
    """The guide's directories where everybody may enter, as a system has them."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    if "www-data" not in {user.pw_name for user in pwd.getpwall()}:
        pytest.skip("there is no www-data")
    if not os.path.exists(SYSTEM_PYTHON):
        pytest.skip(f"there is no {SYSTEM_PYTHON}")
    below = Path(tempfile.mkdtemp(prefix="rwsgi-tests-"))
    below.chmod(0o755)
    guide = Guide(BEHIND_NGINX, below)
    guide.module("/home/user1/mysite1/mysite1")
    guide.place("/tmp").chmod(0o1777)
    for directory in ("/run/uwsgi", "/var/log/uwsgi"):
        shutil.chown(guide.place(directory), "www-data", "www-data")
    for directory in ("static", "media"):
        (below / directory).mkdir()
        (below / directory / "file.txt").write_text(f"from {directory}\n")
    yield guide
    shutil.rmtree(below)


def test_behind_nginx_in_the_background_as_www_data(program, guide, tmp_path):
    www_data = pwd.getpwnam("www-data")
    environment = guide.place("/home/user1/Env/mysite1")
    servers = Servers(install(program, environment), tmp_path)
    site, log = guide.place("/run/uwsgi/mysite1.sock"), guide.place("/var/log/uwsgi/mysite1.log")
    pidfile = guide.place("/tmp/mysite1-master.pid")
    server = servers.start(guide.file, cwd=guide.below)
    nginx = None
    try:
        assert server.wait_exit() == 0, server.log()
        master = int(pidfile.read_text())
        assert master != server.pid and processes.alive(master)
        about = site.stat()
        assert (about.st_uid, about.st_gid, about.st_mode & 0o777) == (www_data.pw_uid, www_data.pw_gid, 0o664)
        prefix = tmp_path / "nginx"
        prefix.mkdir()
        nginx = Nginx(prefix, {"uwsgi-unix": ("/run/rwsgi/app.sock", str(site))}, LOCATIONS.format(below=guide.below))
        address = nginx.addresses["uwsgi-unix"]
        answer = http.get(address, "/page")
        assert answer.status == 200, f"{nginx.log()}\n{log.read_text()}"
        seen = json.loads(answer.body)
        assert (seen["path"], seen["uid"], seen["gid"]) == ("/page", www_data.pw_uid, www_data.pw_gid)
        assert (seen["prefix"], seen["cwd"]) == (str(environment), str(guide.place("/home/user1/mysite1")))
        for directory in ("static", "media"):
            assert http.get(address, f"/{directory}/file.txt").text == f"from {directory}\n"
        until(lambda: "/page" in log.read_text(), "the request is in the log")
        assert "/static" not in log.read_text(), "nginx serves it alone"
        workers = [process for process in server.processes() if process.command.startswith("rwsgi worker")]
        assert len(workers) == 2
        assert {user_of(process.pid) for process in server.processes()} == {www_data.pw_uid}
        assert master in {process.pid for process in server.processes()}
        told = subprocess.run([servers.program.path, "--stop", pidfile], capture_output=True, text=True, timeout=30, check=False)
        assert told.returncode == 0, told.stderr
        server.wait_gone()
        assert not site.exists()
        assert not pidfile.exists()
        assert log.exists(), "a log is no leftover"
    finally:
        if nginx is not None:
            nginx.stop()
        for process in server.processes():
            processes.kill(process.pid, signal.SIGKILL)
        servers.stop_all()
