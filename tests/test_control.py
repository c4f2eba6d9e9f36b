"""The control socket: who may use it, what it does with a server, and `rwsgi ctl`."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rig import http, other_user
from rig.addresses import listening, tcp
from rig.control import Control, ask, ctl
from rig.load import Load
from rig.waiting import DEADLINE, until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI has no such socket")


@pytest.fixture
def at(tmp_path):
    """Where the control socket is."""
    return tmp_path / "control.sock"


@pytest.fixture
def start(serve, address, stats_at, at):
    """Starts a server with a control socket: `start("--processes", 2)`."""

    def start(*arguments, application="worklife.py", listen="--http-socket"):
        server = serve(listen, address, "--wsgi-file", application, "--stats", stats_at, "--control", at, *arguments)
        until(at.exists, "the control socket is there", context=server.log)
        return server

    return start


def pids(server) -> list[int]:
    return [worker["pid"] for worker in server.stats()["workers"]]


def text(reply) -> str:
    assert "done" in reply, reply
    return reply["done"]["text"]


def failure(reply) -> str:
    assert "failed" in reply, reply
    return reply["failed"]


def test_the_socket_has_mode_600_says_where_it_is_and_goes_with_the_server(start, at):
    server = start()
    mode = at.lstat().st_mode
    assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o600
    assert server.stats()["control"] == str(at)
    stats = ask(at, "stats")["done"]["stats"]
    assert stats["pid"] == server.pid and stats["control"] == str(at)
    server.send(15)
    server.wait_exit()
    assert not at.exists()


def test_one_connection_asks_again_and_again_and_a_wrong_line_does_no_harm(start, at):
    start()
    with Control(at) as control:
        for line, expected in [
            (b"what?\n", "that is no request"),
            (b'{"do":"dance"}\n', "that is no request"),
            (b'{"do":"stacks","wroker":1}\n', "that is no request"),
            (b'{"do":"log-level","level":"loud"}\n', "no log level"),
            (b'{"do":"recycle","worker":9}\n', "there is no worker 9"),
        ]:
            control.send(line)
            assert expected in failure(next(control.replies()))
        assert control.ask("stats")["done"]["stats"]["server"] == "rwsgi"
        # Who says no more still gets the answer.
        control.send(b'{"do":"stats"}')
        control.socket.shutdown(socket.SHUT_WR)
        assert "done" in next(control.replies())
    with Control(at) as control:
        control.send(b"x" * 20_000)
        assert "16384 bytes" in failure(next(control.replies()))
        assert not list(control.replies())


def test_clients_that_say_nothing_lock_nobody_out(start, at):
    start()
    silent = [Control(at) for _ in range(40)]
    try:
        assert "done" in ask(at, "stats")
    finally:
        for each in silent:
            each.__exit__()


def test_a_reload_is_answered_when_the_new_generation_serves_and_the_log_says_who(start, at, address):
    server = start("--processes", 2)
    server.wait_workers(2)
    with Load(address, clients=2) as load:
        for how in ["rolling", "chain", "brutal"]:
            assert "serves in 2 workers" in text(ask(at, "reload", how=how))
            document = server.stats()
            assert {worker["generation"] for worker in document["workers"]} == {document["generation"]}
    # Brutal is what it says.
    assert server.stats()["generation"] == 4
    (line,) = server.lines("reload (chain) asked by")
    assert f"(uid {os.geteuid()}, pid {os.getpid()} " in line
    assert not [reason for reason in load.lost if "500" in reason]


def test_a_reload_that_fails_is_told_and_changes_nothing(start, at, tmp_path):
    app = tmp_path / "app.py"
    app.write_text("def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'x']\n")
    server = start("--processes", 2, application=app)
    before = pids(server.wait_workers(2) and server)
    app.write_text("def broken(:\n")
    assert "generation 2 could not be loaded" in failure(ask(at, "reload"))
    assert pids(server) == before


def test_a_recycled_worker_loses_no_request_and_the_others_stay(start, at, address):
    server = start("--processes", 3)
    server.wait_workers(3)
    before = pids(server)
    with Load(address, clients=4) as load:
        assert "worker 2 is process" in text(ask(at, "recycle", worker=2))
    assert not load.lost, load.lost
    after = pids(server)
    assert after[0] == before[0] and after[2] == before[2] and after[1] != before[1]
    assert server.stats()["generation"] == 1, "the same code"
    server.logged(rf"worker 2 \(pid {before[1]}\): recycle: replacing it")


@pytest.mark.parametrize("listen", ["--http-socket", "--http"])
def test_a_drained_worker_takes_no_new_requests_until_it_is_undrained(start, at, address, listen):
    server = start("--processes", 2, listen=listen)
    server.wait_workers(2)
    (drained, other) = pids(server)

    def served() -> set[int]:
        return {int(http.get(address, "/").body) for _ in range(20)}

    assert f"worker 1 (pid {drained}) takes no new requests" in text(ask(at, "drain", worker=1))
    server.wait_stats(lambda document: not document["workers"][0]["accepting"], "worker 1 accepts nothing")
    assert "drained already" in text(ask(at, "drain", worker=1))
    # A request that was on its way is still served.
    until(lambda: served() == {other}, "only the other serves", context=server.log)
    assert "only one that takes requests" in failure(ask(at, "drain", worker=2))
    assert pids(server) == [drained, other], "it stays"
    assert "takes requests again" in text(ask(at, "undrain", worker=1))
    server.wait_workers(2)

    with Load(address, clients=8):
        until(lambda: served() == {drained, other}, "both serve", context=server.log)


def test_the_workers_that_stay_are_not_all_drained(start, at, address):
    server = start("--processes", 2)
    server.wait_workers(2)
    before = pids(server)
    assert "takes no new requests" in text(ask(at, "drain", worker=1))
    assert "undrain one first" in failure(ask(at, "workers", count=1))
    assert pids(server) == before
    assert http.get(address, "/").status == 200
    ask(at, "undrain", worker=1)
    assert "1 worker of 2 run now" in text(ask(at, "workers", count=1))


def test_a_drained_worker_finishes_what_it_has(start, at, address, tmp_path):
    server = start("--processes", 2, "--threads", 2)
    server.wait_workers(2)
    release, started = tmp_path / "release", tmp_path / "started"
    answers = []
    slow = threading.Thread(target=lambda: answers.append(http.get(address, f"/?until={release}&started={started}")))
    slow.start()
    # The file is made before it is written.
    until(lambda: started.exists() and started.read_text().endswith("\n"), "the request is with the application")
    pid = int(started.read_text().split()[0])
    number = pids(server).index(pid) + 1
    assert "takes no new requests" in text(ask(at, "drain", worker=number))
    server.wait_stats(lambda document: not document["workers"][number - 1]["accepting"], "it accepts nothing")
    assert server.stats()["workers"][number - 1]["status"] == "busy"
    release.touch()
    slow.join()
    assert answers[0].status == 200 and int(answers[0].body) == pid


def test_the_number_of_workers_follows_an_operator(start, at, address):
    server = start("--processes", 4)
    server.wait_workers(4)
    with Load(address, clients=4) as load:
        assert "2 workers of 4 run now: 2 finish their requests" in text(ask(at, "workers", count=2))
        server.wait_stats(lambda d: [w["status"] == "cheap" for w in d["workers"]] == [False, False, True, True], "2 left")
        assert "no process" in failure(ask(at, "recycle", worker=4))
        assert "serves in 2 workers" in text(ask(at, "reload"))
        assert "3 workers of 4 run now, 1 more" in text(ask(at, "workers", count=3))
        server.wait_workers(3)
    assert not load.lost, load.lost
    for count in [0, 5]:
        assert "space for 1 to 4" in failure(ask(at, "workers", count=count))


def test_the_number_of_workers_is_the_most_that_cheaper_starts(start, at, address, tmp_path):
    release = tmp_path / "release"
    server = start("--processes", 4, "--cheaper", 1, "--cheaper-step", 4)
    server.wait_workers(1)
    assert "2 workers of 4 run now, 1 more; cheaper starts and stops" in text(ask(at, "workers", count=2))
    server.wait_workers(2)
    clients = [threading.Thread(target=http.get, args=(address, f"/?until={release}")) for _ in range(4)]
    for client in clients:
        client.start()
    server.wait_stats(lambda d: sum(w["status"] == "busy" for w in d["workers"]) == 2, "all are busy")
    # It looks twice a second.
    since = server.stats()["now"]
    server.wait_stats(lambda d: d["now"] - since > 2_000_000, "cheaper has looked")
    assert len([w for w in server.stats()["workers"] if w["pid"]]) == 2
    assert "4 workers of 4" in text(ask(at, "workers", count=4))
    release.touch()
    for client in clients:
        client.join()


def test_the_log_tells_as_much_as_it_is_told_to_in_every_process(start, at, address):
    server = start("--processes", 1)
    server.wait_workers(1)
    assert "messages of level error" in text(ask(at, "log-level", level="error"))
    assert "worker 1 is process" in text(ask(at, "recycle", worker=1))
    assert not server.lines("recycle: replacing it"), "that is information"
    # Who does what is always told.
    server.logged("recycle of worker 1 asked by")
    ask(at, "log-level", level="info")
    assert "worker 1 is process" in text(ask(at, "recycle", worker=1))
    server.logged("recycle: replacing it")


def test_ctl_prints_answers_for_people_and_programs_and_exits_by_what_came_of_it(start, at, program, tmp_path):
    server = start("--processes", 2)
    server.wait_workers(2)
    done = ctl(program, "--control", at, "recycle", 2)
    assert done.returncode == 0 and done.stdout.startswith("worker 2 is process "), done
    done = ctl(program, "stats", "--control", at)
    assert json.loads(done.stdout)["pid"] == server.pid
    done = ctl(program, "--control", at, "drain", 2, "--json")
    assert "takes no new requests" in json.loads(done.stdout)
    done = ctl(program, "--control", at, "recycle", 7)
    assert done.returncode == 1 and "there is no worker 7: they are 1 to 2" in done.stderr and not done.stdout
    for words in [["--control", at, "recycle"], ["dance"], ["--control", at, "workers", "0"]]:
        assert ctl(program, *words).returncode == 2
    for words in [["--control", tmp_path / "nothing", "stats"], ["--pidfile", tmp_path / "nothing", "stats"]]:
        done = ctl(program, *words)
        assert done.returncode == 3 and "nothing" in done.stderr, done
    done = ctl(program, "help", "drain")
    assert done.returncode == 0 and "http router" in done.stdout


@pytest.fixture
def run_directory(tmp_path):
    """A run directory of this user's."""
    directory = tmp_path / "run"
    directory.mkdir(mode=0o700)
    return directory


def test_without_a_path_the_socket_is_in_the_run_directory_and_ctl_finds_it(serve, address, run_directory, program, tmp_path):
    pidfile = tmp_path / "pid"
    env = {"XDG_RUNTIME_DIR": str(run_directory)}
    server = serve("--http-socket", address, "--wsgi-file", "worklife.py", "--pidfile", pidfile, env=env)
    path = run_directory / "rwsgi" / f"rwsgi-{server.pid}.sock"
    until(lambda: listening(str(path)), "the socket is there", context=server.log)
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600 and stat.S_IMODE(path.parent.lstat().st_mode) == 0o700
    until(lambda: json.loads(ctl(program, "--pidfile", pidfile, "stats").stdout)["workers"][0]["accepting"], "it serves")
    lines = ctl(program).stdout.splitlines()
    assert [line for line in lines if str(path) in line and line.split()[0] == str(server.pid)], lines
    (line,) = [line for line in ctl(program, "--json").stdout.splitlines() if str(path) in line]
    assert json.loads(line)["running"] == 1
    server.send(signal.SIGKILL)
    server.wait_exit()
    server.wait_gone()
    assert path.exists(), "nobody has removed it"
    after = serve("--http-socket", address, "--wsgi-file", "worklife.py", env=env)
    until((path.parent / f"rwsgi-{after.pid}.sock").exists, "its own socket is there", context=after.log)
    assert not path.exists()


def test_a_server_that_hangs_does_not_hide_the_others_from_ctl(serve, address, run_directory, program):
    env = {"XDG_RUNTIME_DIR": str(run_directory)}
    hanging = serve("--http-socket", tcp(), "--wsgi-file", "worklife.py", env=env)
    server = serve("--http-socket", address, "--wsgi-file", "worklife.py", env=env)
    path = run_directory / "rwsgi"
    for each in (hanging, server):
        until(lambda: listening(f"{path}/rwsgi-{each.pid}.sock"), "its socket is there", context=each.log)
    hanging.send(signal.SIGSTOP)
    try:
        done = ctl(program)
    finally:
        hanging.send(signal.SIGCONT)
    assert str(path / f"rwsgi-{server.pid}.sock") in done.stdout
    assert f"server {hanging.pid} on '{path}/rwsgi-{hanging.pid}.sock' does not tell how it is" in done.stderr


def test_a_run_directory_of_systemd_goes_first(serve, address, run_directory, tmp_path):
    other = tmp_path / "other"
    other.mkdir(mode=0o755)
    env = {"XDG_RUNTIME_DIR": str(run_directory), "RUNTIME_DIRECTORY": f"{other}:/run/second"}
    server = serve("--http-socket", address, "--wsgi-file", "worklife.py", env=env)
    until((other / f"rwsgi-{server.pid}.sock").exists, "the socket is there", context=server.log)


def test_there_is_no_socket_when_it_is_off_or_others_may_write_to_the_directory(serve, address, stats_at, run_directory, tmp_path):
    env = {"XDG_RUNTIME_DIR": str(run_directory)}
    server = serve("--http-socket", address, "--wsgi-file", "worklife.py", "--stats", stats_at, "--control", "off", env=env)
    assert "control" not in server.stats()
    assert not list(run_directory.iterdir())
    server.send(signal.SIGTERM)
    server.wait_exit()
    run_directory.chmod(0o777)
    server = serve("--http-socket", address, "--wsgi-file", "worklife.py", "--stats", stats_at, env=env)
    assert not list(run_directory.iterdir())
    server.send(signal.SIGTERM)
    server.wait_exit()
    run_directory.chmod(0o700)
    (run_directory / "rwsgi").symlink_to(tmp_path)
    serve("--http-socket", address, "--wsgi-file", "worklife.py", "--stats", stats_at, env=env)
    assert not list(tmp_path.glob("rwsgi-*"))


def test_a_living_server_s_socket_is_not_taken_and_another_file_stays(start, serve, at, address, tmp_path):
    server = start()
    second = serve.start("--http-socket", tcp(), "--wsgi-file", "worklife.py", "--control", at)
    assert second.wait_exit() != 0
    assert "another process listens there" in second.log()
    assert ask(at, "stats")["done"]["stats"]["pid"] == server.pid
    precious = tmp_path / "precious"
    precious.write_text("precious")
    third = serve.start("--http-socket", tcp(), "--wsgi-file", "worklife.py", "--control", precious)
    assert third.wait_exit() != 0
    assert precious.read_text() == "precious"


ASK = r"""
import socket, sys
asking = socket.socket(socket.AF_UNIX)
try:
    asking.connect(sys.argv[1])
    asking.sendall(b'{"do":"reload"}\n')
    print(asking.makefile().readline())
except OSError as error:
    print(type(error).__name__)
"""


def asked_as(user: str, path) -> str:
    command = [other_user.SYSTEM_PYTHON, "-c", ASK, path]
    return subprocess.run(
        command, user=user, group=user, extra_groups=[], cwd="/", capture_output=True, text=True, check=True
    ).stdout


def test_another_user_is_refused_by_the_file_and_by_the_server(serve, address):
    other_user.www_data()
    place = other_user.place()
    try:
        path = place / "control.sock"
        server = serve("--http-socket", address, "--wsgi-file", "worklife.py", "--control", path)
        until(path.exists, "the socket is there", context=server.log)
        assert asked_as("www-data", path).strip() == "PermissionError"
        path.chmod(0o666)
        assert "only root and the user that the server runs as" in asked_as("www-data", path)
        server.logged(r"control: www-data \(uid \d+, pid \d+ python3\S*\) is refused")
        assert not server.lines("asked by")
    finally:
        shutil.rmtree(place)


def test_a_server_of_root_s_that_becomes_another_user_gives_it_the_socket(serve, address, program_for_all, tmp_path):
    from rig.server import Servers

    www_data = other_user.www_data()
    place = other_user.place()
    servers = Servers(program_for_all, tmp_path)
    (place / "app.py").write_text(
        "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'x']\n"
    )
    try:
        server = servers("--http-socket", address, "--wsgi-file", place / "app.py", "--uid", "www-data", "--gid", "www-data")
        path = None

        def found():
            nonlocal path
            path = f"/run/rwsgi/{www_data.pw_uid}/rwsgi-{server.pid}.sock"
            return os.path.exists(path) and os.lstat(path).st_uid == www_data.pw_uid

        until(found, "its socket is there", context=server.log)
        assert os.lstat(os.path.dirname(path)).st_uid == www_data.pw_uid
        assert '"progress"' in asked_as("www-data", path)
        assert "done" in ask(path, "stats"), "root may as well"
        server.logged(r"control: reload \(rolling\) asked by www-data \(uid \d+, pid \d+ python3")
        server.send(signal.SIGINT)
        server.wait_exit()
        assert not os.path.exists(path)
    finally:
        servers.stop_all()
        shutil.rmtree(place)


def test_the_example_of_the_documentation_works(start, at):
    server = start("--processes", 1)
    server.wait_workers(1)
    text = (Path(__file__).parent.parent / "docs" / "control.md").read_text()
    (example,) = re.findall(r"```python[^\n]*\n(.*?)```", text, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", example, at], capture_output=True, text=True, check=True, timeout=DEADLINE)
    assert "worker 1 is process" in done.stdout


def test_rtop_asks_before_it_acts_and_shows_what_came_of_it(start, at, stats_at, terminal, rtop):
    server = start("--processes", 2)
    server.wait_workers(2)
    before = pids(server)
    screen = terminal([rtop, stats_at])
    screen.wait("workers", str(before[1]))
    screen.press("X")
    screen.wait("select a worker first")
    screen.press("Home", "X")
    told = screen.wait("any other key leaves it", "No request is lost", "the other worker is not touched")
    number = int(re.search(r"recycle of worker (\d)", told)[1])
    assert f"process {before[number - 1]} finishes what it has (no request now)" in told
    screen.press("n")
    screen.wait_for(lambda shown: "any other key" not in shown, "the question is gone")
    assert pids(server) == before and not server.lines("asked by")
    screen.press("X", "y")
    screen.wait(f"recycle of worker {number}: worker {number} is process")
    after = pids(server)
    assert after[number - 1] != before[number - 1]
    server.logged(rf"control: recycle of worker {number} asked by \S+ \(uid \d+, pid \d+ rtop\)")
    screen.press("R")
    screen.wait("loaded again beside generation 1", "all 2 workers are replaced")
    screen.press("y")
    screen.wait("reload: generation 2 serves in 2 workers")
    # An order is for the processes that the screen shows: those before the reload are gone.
    screen.wait(*map(str, pids(server)))
    screen.press("{")
    screen.wait("1 of 2 workers run instead of 2", "worker 2 (pid")
    screen.press("y")
    screen.wait("a worker fewer: 1 worker of 2 run now")
    screen.press("q")
    screen.wait_left()


def test_rtop_that_only_looks_has_no_keys_that_act(start, stats_at, terminal, rtop, tmp_path):
    server = start("--processes", 2)
    server.wait_workers(2)
    before = pids(server)
    config = tmp_path / "config.toml"
    config.write_text("read_only = true\n")
    for arguments in [["--read-only"], ["--config", config]]:
        screen = terminal([rtop, stats_at, *arguments])
        screen.wait("workers", str(before[1]))
        # Where there is no question, y says why, and y again leaves that.
        screen.press("R", "y", "y", "?")
        screen.wait("keys and columns")
        assert "act: load" not in screen.screen()
        tracing = [rtop, stats_at, *arguments, "--memory", "trace-start"]
        done = subprocess.run(tracing, capture_output=True, text=True, timeout=DEADLINE, check=False)
        assert done.returncode == 2 and "rtop only looks" in done.stderr
    assert pids(server) == before and not server.lines("asked by")


def test_rtop_says_why_a_server_without_a_control_socket_cannot_be_acted_on(serve, address, stats_at, terminal, rtop):
    server = serve("--http-socket", address, "--wsgi-file", "worklife.py", "--stats", stats_at, "--control", "off")
    server.wait_workers(1)
    screen = terminal([rtop, stats_at])
    screen.wait("workers")
    screen.press("R")
    screen.wait("no control socket: start it with --control PATH")
