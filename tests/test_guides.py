"""Configurations as deployment guides give them, run as they stand: only their directories and ports are others here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import venv
from pathlib import Path

import pytest

from rig import http, stats, uwsgi
from rig.addresses import free_port, tcp
from rig.server import APPS
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI calls its processes otherwise, and checks no files")

BEHIND_NGINX = """\
[uwsgi]
uid=www-data
gid=www-data
project=mysite1
base=/home/user1
home=%(base)/Env/%(project)
chdir=%(base)/%(project)
module=%(project).wsgi:application
master=True
processes=2
socket=/run/uwsgi/%(project).sock
chown-socket=%(uid):www-data
chmod-socket=664
pidfile=/tmp/%(project)-master.pid
daemonize=/var/log/uwsgi/%(project).log
vacuum=True
max-requests=5000
harakiri=60
harakiri-verbose=true
buffer-size=65536
post-buffering=65536
memory-report=true
reload-mercy=10
reload-on-as=1024
"""

ADAPTIVE = """\
[uwsgi]
pidfile=uwsgi.pid
chdir=/project
vacuum=true
http-socket=:9090
wsgi-file=foobar.py
callable=app
enable-threads=true
master=true
processes=8
threads=4
cheaper=2
idle=60
reload-on-rss=100
reload-on-as=1024
max-requests=500000
stats=127.0.0.1:9091
memory-report=true
auto-procname=true
procname-prefix-spaced=test-ax
"""

LIMITED = """\
[uwsgi]
socket = 127.0.0.1:8001
master = false
chdir = /var/www/cmpvirtmgr/
module = cmpvirtmgr.wsgi
home = /var/www/env
workers = 2
reload-mercy = 10
vacuum = true
max-requests = 1000
limit-as = 512
buffer-size = 30000
pidfile = /etc/uwsgi/uwsgi.pid
"""

# What the files name that every machine has only once.
DIRECTORIES = ("/home/user1", "/run/uwsgi", "/tmp", "/var/log/uwsgi", "/project", "/var/www", "/etc/uwsgi")
PORTS = ("9090", "9091", "8001")

SITE = """
import json, os, resource, sys

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    seen = {"path": environ["PATH_INFO"], "pid": os.getpid(), "uid": os.getuid(), "gid": os.getgid(), "prefix": sys.prefix,
            "cwd": os.getcwd(), "limit": resource.getrlimit(resource.RLIMIT_AS)[0]}
    return [json.dumps(seen).encode()]

app = application
"""


class Guide:
    """One file of a guide below a directory, with the ports that it got."""

    def __init__(self, text: str, below: Path) -> None:
        self.below = below
        self.ports = {port: str(free_port()) for port in PORTS}
        for directory in DIRECTORIES:
            self.place(directory).mkdir(parents=True, exist_ok=True)
        # In one pass: the directory that all is mapped to may be below one of these itself.
        text = re.sub(rf"(?<==)( ?)({'|'.join(DIRECTORIES)})\b", lambda found: found[1] + str(self.place(found[2])), text)
        text = re.sub(rf":({'|'.join(PORTS)})$", lambda found: f":{self.ports[found[1]]}", text, flags=re.MULTILINE)
        self.file = below / "guide.ini"
        self.file.write_text(text)

    def place(self, path: str) -> Path:
        """Where something is that the guide has at `path`."""
        return self.below / path.lstrip("/")

    def at(self, port: str) -> str:
        """The address of what the guide has on `port`."""
        return f"127.0.0.1:{self.ports[port]}"

    def module(self, path: str) -> None:
        """Puts the application into a package's `wsgi` module."""
        package = self.place(path)
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "wsgi.py").write_text(SITE)


def commands(server) -> list[str]:
    return sorted(process.command for process in server.processes())


def test_monitored_and_adaptive(serve, tmp_path):
    guide = Guide(ADAPTIVE, tmp_path)
    (guide.place("/project") / "foobar.py").write_text(SITE)
    server = serve(guide.file, cwd=tmp_path, listens=[guide.at("9090"), guide.at("9091")])

    def statuses() -> list[str]:
        return sorted(worker["status"] for worker in stats.read(guide.at("9091"))["workers"])

    until(lambda: statuses() == ["cheap"] * 6 + ["idle"] * 2, "two workers run", context=server.log)
    assert {len(worker["cores"]) for worker in stats.read(guide.at("9091"))["workers"]} == {4}
    pidfile = tmp_path / "uwsgi.pid"
    assert int(pidfile.read_text()) == server.pid
    seen = json.loads(http.get(guide.at("9090"), "/page").body)
    assert seen["cwd"] == str(guide.place("/project"))
    shown = subprocess.run(["ps", "-o", "args=", "-ww", "-p", str(seen["pid"])], capture_output=True, text=True, check=True).stdout
    assert re.fullmatch(r"test-ax rwsgi worker [12]\n", shown)
    assert "test-ax rwsgi master" in commands(server)
    server.stop()
    assert not pidfile.exists()


def test_limited_without_a_master_to_see(serve, tmp_path):
    guide = Guide(LIMITED, tmp_path)
    guide.module("/var/www/cmpvirtmgr/cmpvirtmgr")
    venv.create(guide.place("/var/www/env"), with_pip=False)
    server = serve(guide.file, cwd=tmp_path, listens=[guide.at("8001")])
    until(lambda: {"rwsgi worker 1", "rwsgi worker 2"} <= set(commands(server)), "two workers", context=server.log)
    seen = json.loads(uwsgi.get(guide.at("8001"), "/page").body)
    assert seen["limit"] == 512 << 20
    assert seen["prefix"] == str(guide.place("/var/www/env"))
    assert seen["cwd"] == str(guide.place("/var/www/cmpvirtmgr"))
    # What nginx sends holds the query twice: it is much larger than the default of uWSGI, but fits here.
    assert uwsgi.get(guide.at("8001"), "/?" + "x" * 14500).status == 200
    pidfile = guide.place("/etc/uwsgi/uwsgi.pid")
    assert int(pidfile.read_text()) == server.pid
    server.stop()
    assert not pidfile.exists()


@pytest.mark.parametrize(("text", "facts"), [
    (BEHIND_NGINX, ["processes = 2 ; {file}:10", "socket = {below}/run/uwsgi/mysite1.sock ; {file}:11"]),
    (ADAPTIVE, ["cheaper = 2 ; {file}:12", "chdir = {below}/project ; {file}:3", "buffer-size = 65536 ; default"]),
    (LIMITED, ["limit-as = 512 ; {file}:11", "processes = 2 ; {file}:7"]),
], ids=["behind nginx", "adaptive", "limited"])
def test_a_check_says_what_a_file_means_and_starts_nothing(serve, tmp_path, text, facts):
    guide = Guide(text, tmp_path)
    server = serve.run("--check", guide.file, cwd=tmp_path)
    assert server.wait_exit() == 0, server.log()
    lines = [" ".join(line.split()) for line in server.log().splitlines()]
    for fact in facts:
        assert fact.format(file=guide.file, below=tmp_path) in lines, server.log()
    assert not list(tmp_path.rglob("*.sock"))


def test_a_check_of_a_file_for_systemd_s_sockets_says_where_the_address_comes_from(serve, tmp_path):
    file = tmp_path / "site.ini"
    file.write_text("[uwsgi]\nmodule = mysite.wsgi\n")
    server = serve.run("--check", file, cwd=tmp_path)
    assert server.wait_exit() == 0, server.log()
    server.logged("^warning: no address to serve on: .*LISTEN_FDS")
    file.write_text("[uwsgi]\nmodule = mysite.wsgi\nstrict = true\n")
    server = serve.run("--check", file, cwd=tmp_path)
    assert server.wait_exit() == 1
    server.logged("^error: no address to serve on")


def test_a_least_number_of_workers_above_the_most_is_refused_in_a_line(serve, tmp_path):
    guide = Guide(ADAPTIVE.replace("cheaper=2", "cheaper=10"), tmp_path)
    server = serve.run(guide.file, cwd=tmp_path)
    assert server.wait_exit() != 0
    (line,) = server.log().splitlines()
    assert "cheaper must be lower than processes: it is 10, and processes is 8" in line


@pytest.mark.parametrize(("value", "count"), [
    ("$MY_PROCESSES", 3), ("$(MY_PROCESSES)", 3), ("%k", os.cpu_count()),
])
def test_the_number_of_workers_comes_from_elsewhere(serve, address, stats_at, tmp_path, value, count):
    file = tmp_path / "site.ini"
    file.write_text(f"[uwsgi]\nhttp-socket={address}\nwsgi-file=foobar.py\nprocesses={value}\nstats={stats_at}\n")
    serve(file, listens=[address, stats_at], env={"MY_PROCESSES": "3"})
    assert len(stats.read(stats_at)["workers"]) == count


def test_the_command_line_of_the_guides(serve, tmp_path):
    environment, at = tmp_path / "venv", tcp()
    venv.create(environment, with_pip=False)
    (tmp_path / "site" / "mysite").mkdir(parents=True)
    (tmp_path / "site" / "mysite" / "wsgi.py").write_text(SITE)
    serve(
        *("--uwsgi", at, "--chdir", tmp_path / "site", "--home", environment, "--module", "mysite.wsgi"),
        cwd=APPS, listens=[at],
    )
    seen = json.loads(uwsgi.get(at, "/page").body)
    assert (seen["prefix"], seen["cwd"], seen["path"]) == (str(environment), str(tmp_path / "site"), "/page")
