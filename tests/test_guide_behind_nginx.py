"""The guides' server behind nginx: in the background, as www-data, with the system's own Python, static files by nginx."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from rig import http, other_user, processes
from rig.nginx import Nginx
from rig.server import Servers
from rig.waiting import until
from test_guides import BEHIND_NGINX, Guide

pytestmark = pytest.mark.only_rwsgi(why="uWSGI calls its processes otherwise")

VIEW = """

def page(request):
    import os, sys
    seen = {"path": request.path, "pid": os.getpid(), "uid": os.getuid(), "gid": os.getgid(), "prefix": sys.prefix, "cwd": os.getcwd()}
    return JsonResponse(seen)
"""
LOCATIONS = """
    location /static/ {{ alias {below}/static/; }}
    location /media/ {{ alias {below}/media/; }}
"""


EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "django" / "demo"


def user_of(pid: int) -> int:
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Uid:"))
    real, effective, saved, files = map(int, line.split()[1:])
    assert real == effective == saved == files, line
    return real


@pytest.fixture
def guide():
    """The guide's directories where everybody may enter, as a system has them."""
    other_user.www_data()
    below = other_user.place()
    guide = Guide(BEHIND_NGINX, below)
    guide.place("/tmp").chmod(0o1777)
    for directory in ("/run/uwsgi", "/var/log/uwsgi"):
        shutil.chown(guide.place(directory), "www-data", "www-data")
    for directory in ("static", "media"):
        (below / directory).mkdir()
        (below / directory / "file.txt").write_text(f"from {directory}\n")
    yield guide
    shutil.rmtree(below)


def django_project(directory: Path) -> None:
    """The example's project under the name that the guide has."""
    directory.mkdir(parents=True)
    for file in EXAMPLE.glob("*.py"):
        text = file.read_text()
        if file.name == "views.py":
            text += VIEW
        elif file.name == "urls.py":
            text = text.replace('path("", views.index)', 'path("", views.index), path("page", views.page)')
        (directory / file.name).write_text(text.replace("demo", "mysite1"))


@pytest.mark.parametrize("framework", ["wsgi", "django"])
def test_behind_nginx_in_the_background_as_www_data(program, guide, tmp_path, framework):
    www_data = pwd.getpwnam("www-data")
    environment = guide.place("/home/user1/Env/mysite1")
    if framework == "django":
        django_project(guide.place("/home/user1/mysite1/mysite1"))
    else:
        guide.module("/home/user1/mysite1/mysite1")
    packages = ["django", "asgiref", "sqlparse"] if framework == "django" else []
    servers = Servers(other_user.install(program, environment, *packages), tmp_path)
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
        if framework == "django":
            body = os.urandom(3_000_000)
            (tmp_path / "file.bin").write_bytes(body)
            # Larger than post-buffering, and than what Django keeps in memory: files that www-data has to make.
            done = subprocess.run(
                ["curl", "-sS", "--max-time", "60", "-F", f"file=@{tmp_path}/file.bin", f"http://{address}/upload"],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            assert json.loads(done.stdout)["sha256"] == hashlib.sha256(body).hexdigest(), log.read_text()
            assert http.get(address, "/error").status == 500
            until(lambda: "RuntimeError: the view failed" in log.read_text(), "the traceback is in the log")
        for directory in ("static", "media"):
            assert http.get(address, f"/{directory}/file.txt").text == f"from {directory}\n"
        until(lambda: "/page" in log.read_text(), "the request is in the log")
        assert "/static" not in log.read_text(), "nginx serves it alone"
        until(
            lambda: sum(process.command.startswith("rwsgi worker") for process in server.processes()) == 2, "two workers",
            context=log.read_text,
        )
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
