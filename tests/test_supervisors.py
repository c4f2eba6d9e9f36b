"""Under a supervisor: systemd's notifications and sockets, process names, another user."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rig import http, other_user, processes, uwsgi
from rig.addresses import listening
from rig.load import Load
from rig.server import APPS, Servers, environment
from rig.site import Site
from rig.supervisor import Notifications
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI tells systemd less, and calls itself uWSGI")

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
# What systemd does between its fork and its exec.
PASS_SOCKET = """
import os, sys
fd, program, *arguments = sys.argv[1:]
os.dup2(int(fd), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(program, [program, *arguments])
"""
# What somebody does who only says so.
PROMISE_SOCKET = PASS_SOCKET.replace("os.dup2(int(fd), 3)\n", "")


@pytest.fixture
def systemd(tmp_path):
    """Listens to what a service tells."""
    notifications = Notifications(tmp_path / "notify")
    yield notifications
    notifications.close()


def test_systemd_is_told_of_readiness_status_reloads_and_the_end(serve, address, stats_at, systemd):
    server = serve(
        *("--http-socket", address, "--wsgi-file", "worklife.py", "--processes", 2, "--stats", stats_at),
        env={"NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": "200000"},
    )
    systemd.wait("READY=1")
    systemd.wait("WATCHDOG=1", 3)
    systemd.wait("STATUS=2 workers: 0 busy, 2 idle; 0.0 requests/s")
    with Load(address, "/", clients=2) as load:
        load.wait_good(50)
        until(
            lambda: any(re.search(r"; [1-9]\d*\.\d requests/s", line) for line in systemd.lines()), "the rate is told",
            context=lambda: str(systemd.lines()),
        )
    worker = server.wait_workers(2)["workers"][0]["pid"]
    assert b"NOTIFY_SOCKET" not in Path(f"/proc/{worker}/environ").read_bytes()
    server.send(signal.SIGHUP)
    systemd.wait("RELOADING=1")
    systemd.wait("MONOTONIC_USEC=")
    systemd.wait("READY=1", 2)
    server.send(signal.SIGTERM)
    systemd.wait("STOPPING=1")
    assert server.wait_exit() == 0
    lines = systemd.lines()
    assert lines.index("RELOADING=1") < len(lines) - lines[::-1].index("READY=1")


@pytest.mark.parametrize("configured", [True, False])
def test_a_socket_that_systemd_opened_is_served(program, serve, tmp_path, configured):
    path, log = tmp_path / "site.sock", tmp_path / "log"
    with socket.socket(socket.AF_UNIX) as listener, log.open("wb") as output:
        listener.bind(str(path))
        listener.listen(10)
        # This waits until the server is there.
        client = http.Connection(str(path))
        arguments = ["--http-socket", str(path)] if configured else []
        with subprocess.Popen(
            [sys.executable, "-c", PASS_SOCKET, str(listener.fileno()), program.path, *arguments, "--wsgi-file", "worklife.py"],
            cwd=APPS, pass_fds=[listener.fileno()], stderr=output,
        ) as server:
            try:
                request = http.head("GET", "/") if configured else uwsgi.packet(uwsgi.variables("GET", "/", None))
                client.send(request)
                assert client.response().status == 200
                # The environment names it only once; the server must remember that it has a socket.
                server.send_signal(signal.SIGHUP)
                until(lambda: "generation 2 takes over" in log.read_text(), "a reload", context=log.read_text)
            finally:
                client.close()
                server.terminate()
            assert server.wait(30) == 0
    assert path.exists(), "it is systemd's"


@pytest.mark.parametrize("configured", [True, False])
def test_systemd_s_own_activator_hands_a_socket_over(program, tmp_path, address, configured):
    activate = shutil.which("systemd-socket-activate")
    if activate is None:
        pytest.skip("systemd-socket-activate is not installed")
    file, log, mark = tmp_path / "site.ini", tmp_path / "log", f"activated-{os.getpid()}-{address}"
    lines = ["[uwsgi]", f"chdir = {APPS}", "wsgi-file = worklife.py", *([f"http-socket = {address}"] if configured else [])]
    file.write_text("\n".join(lines) + "\n")
    passed = [f"--setenv={name}={value}" for name, value in environment(mark).items() if name != "NOTIFY_SOCKET"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [activate, f"--listen={address}", *passed, program.path, file],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=tmp_path, start_new_session=True,
        )
    try:
        until(lambda: listening(address), "it listens", context=log.read_text)
        # The first connection starts the server, which answers it.
        answer = Site(None, "http-socket" if configured else "socket", address).get("/")
        assert answer.status == 200, log.read_text()
        assert processes.look(int(answer.body)).command == "rwsgi worker 1"
        # The activator has become the server.
        process.terminate()
        assert process.wait(30) == 0, log.read_text()
        until(lambda: not processes.marked(mark), "nothing is left", context=log.read_text)
    finally:
        for left in processes.marked(mark):
            processes.kill(left.pid)
        process.kill()
        process.wait()


def test_systemd_understands_the_units(program, rtop, tmp_path):
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    units = [tmp_path / name for name in ("rwsgi.service", "rwsgi.socket", "rtop-exporter.service")]
    for unit in units:
        text = (DEPLOY / "systemd" / unit.name).read_text()
        # It looks whether the program is there.
        unit.write_text(text.replace("/srv/mysite/venv/bin/rwsgi", program.path).replace("/usr/local/bin/rtop", rtop))
    done = subprocess.run([analyze, "verify", *units], capture_output=True, text=True, timeout=60, check=False)
    # A key or a value that it does not know is logged, and is no failure.
    assert done.returncode == 0
    assert [line for line in done.stderr.splitlines() if "rwsgi." in line or "rtop-" in line] == []


def test_a_socket_that_is_promised_and_not_there_is_an_error_that_says_so(program):
    done = subprocess.run(
        [sys.executable, "-c", PROMISE_SOCKET, "3", program.path, "--wsgi-file", "worklife.py"],
        cwd=APPS, capture_output=True, text=True, timeout=30, check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "LISTEN_FDS: descriptor 3" in done.stderr
    assert "no socket was inherited, and none is configured" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "before", "after"),
    [
        (["--auto-procname"], "", ""),
        (["--auto-procname", "--procname-prefix-spaced", "test-ax"], "test-ax ", ""),
        (["--procname-prefix", "a-very-long-prefix-that-is-longer-than-any-argument-was-" * 2, "--procname-append", " (blue)"],
         "a-very-long-prefix-that-is-longer-than-any-argument-was-" * 2, " (blue)"),
    ],
)
def test_processes_have_telling_names(serve, address, stats_at, arguments, before, after):
    server = serve("--http", address, "--wsgi-file", "worklife.py", "--stats", stats_at, *arguments, env={"LAST": "x" * 500})
    worker = server.wait_workers(1)["workers"][0]["pid"]
    shown = subprocess.run(["ps", "-o", "args=", "-ww", "-p", str(worker)], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == f"{before}rwsgi worker 1{after}"
    master = processes.look(server.pid)
    assert master is not None and master.command == f"{before}rwsgi master{after}"
    wanted = {f"{before}rwsgi http 1{after}", f"{before}rwsgi forkserver 1{after}"}
    until(
        lambda: wanted <= {process.command for process in server.processes()}, f"{wanted}",
        context=lambda: f"{server.processes()}",
    )


def test_procname_names_all_and_the_master_keeps_its_command_line_by_default(serve, address, stats_at):
    server = serve("--http-socket", address, "--wsgi-file", "worklife.py", "--stats", stats_at)
    worker = server.wait_workers(1)["workers"][0]["pid"]
    assert "--wsgi-file worklife.py" in processes.look(server.pid).command
    assert processes.look(worker).command == "rwsgi worker 1"
    server.stop()
    server = serve(
        "--http-socket", address, "--wsgi-file", "worklife.py", "--stats", stats_at,
        "--procname", "site", "--procname-master", "boss",
    )
    worker = server.wait_workers(1)["workers"][0]["pid"]
    assert [processes.look(pid).command for pid in (server.pid, worker)] == ["boss", "site"]


@pytest.fixture
def for_all():
    """A directory that everybody may enter, with an application."""
    other_user.www_data()
    directory = other_user.place()
    shutil.copy(APPS / "worklife.py", directory)
    yield directory
    shutil.rmtree(directory)


def test_root_is_left_for_another_user(program, tmp_path, stats_at, for_all):
    servers = Servers(other_user.install(program, for_all / "venv"), tmp_path)
    try:
        leave_root(servers, stats_at, for_all)
    finally:
        servers.stop_all()


def leave_root(serve, stats_at, for_all):
    nobody = pwd.getpwnam("www-data")
    run = for_all / "run"
    run.mkdir()
    os.chown(run, nobody.pw_uid, nobody.pw_gid)
    site, pidfile = run / "site.sock", run / "site.pid"
    server = serve(
        *("--http-socket", site, "--stats", stats_at, "--wsgi-file", "worklife.py", "--pidfile", pidfile),
        *("--uid", "www-data", "--gid", "www-data", "--chown-socket", "www-data:root", "--chmod-socket=660", "--vacuum"),
        cwd=for_all,
    )
    document = server.wait_workers(1)
    assert (document["uid"], document["gid"]) == (nobody.pw_uid, nobody.pw_gid)
    status = Path(f"/proc/{document['workers'][0]['pid']}/status").read_text()
    fields = {line.split(":")[0]: line.split(":")[1].split() for line in status.splitlines()}
    assert fields["Uid"] == [str(nobody.pw_uid)] * 4
    assert fields["Gid"] == [str(nobody.pw_gid)] * 4
    assert "0" not in fields["Groups"]
    about = site.stat()
    assert (about.st_uid, about.st_gid, about.st_mode & 0o777) == (nobody.pw_uid, 0, 0o660)
    assert pidfile.stat().st_uid == nobody.pw_uid
    assert http.get(str(site), "/").status == 200
    server.stop()
    assert list(run.iterdir()) == []


def test_running_as_root_is_warned_of(serve, address):
    if os.geteuid() != 0:
        pytest.skip("this is not root")
    serve("--http-socket", address, "--wsgi-file", "worklife.py").logged("running as root")
