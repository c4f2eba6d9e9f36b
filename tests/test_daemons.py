"""Programs beside the server: `attach-daemon` and its kin. What uWSGI does too is tried with a real one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from rig import each, http, processes
from rig.addresses import tcp
from rig.server import Server, Servers
from rig.waiting import until

BOTH = pytest.mark.parametrize("serve", each.BOTH, indirect=True)

# Tells what it lives through in a file: a line for each, with its process id.
DAEMON = """
for number in 1 2 12 15; do
    trap "echo $$ $number >>{record}; [ $number = 12 ] || exit 0" $number
done
echo $$ started >>{record}
while :; do sleep 0.1; done
"""


@pytest.fixture
def serve(request, program, tmp_path, venv_bin):
    """Servers of the program under test, or of the one that the test is parametrised with."""
    servers = each.servers(getattr(request, "param", "rwsgi"), program, venv_bin, tmp_path)
    yield servers
    servers.stop_all()


class Daemon:
    """A program that writes down what it lives through."""

    def __init__(self, directory: Path, name: str = "daemon", text: str = DAEMON) -> None:
        self.record, self.script = directory / f"{name}.record", directory / f"{name}.sh"
        self.script.write_text(text.format(record=self.record))
        self.command = f"exec sh {self.script}"

    def lived(self, what: str = "started") -> list[int]:
        """The process ids of those that wrote this."""
        lines = self.record.read_text().splitlines() if self.record.exists() else []
        return [int(line.split()[0]) for line in lines if line.split()[1] == what]

    def wait(self, what: str = "started", count: int = 1, context=str) -> list[int]:
        """Waits until so many have written this; returns their process ids."""
        until(lambda: len(self.lived(what)) >= count, f"{what} {count} times", context=context)
        return self.lived(what)


@pytest.fixture
def daemon(tmp_path) -> Daemon:
    return Daemon(tmp_path)


def server_of(serve: Servers, *arguments: object, **options) -> Server:
    return serve("--http-socket", tcp(), "--wsgi-file", "foobar.py", "--master", "--stats", tcp(), *arguments, **options)


@BOTH
def test_a_program_runs_beside_the_server_in_its_place_with_nothing_of_its_own_but_the_log(serve, tmp_path):
    look = tmp_path / "look.sh"
    look.write_text(
        "echo to the log\n"
        f"(cat /proc/self/status; readlink /proc/$$/cwd /proc/$$/fd/0; ls /proc/$$/fd; cat /proc/$$/stat) >{tmp_path}/seen.new\n"
        f"echo $OF_THE_SERVER $OF_THE_FILE >>{tmp_path}/seen.new\n"
        f"mv {tmp_path}/seen.new {tmp_path}/seen\nexec sleep 1000\n"
    )
    arguments = ["--attach-daemon", f"exec sh {look}", "--env", "OF_THE_FILE=b"]
    server = server_of(serve, *arguments, env={"OF_THE_SERVER": "a"})
    server.logged("^to the log$")
    seen = until(lambda: (tmp_path / "seen").exists() and (tmp_path / "seen").read_text(), "it has looked")
    assert re.search(r"^SigBlk:\s0+$", seen, re.MULTILINE), seen
    # Python ignores SIGPIPE, as the server may; no program expects to be started so.
    assert not int(re.search(r"^SigIgn:\s(\w+)$", seen, re.MULTILINE)[1], 16) & 1 << signal.SIGPIPE - 1 or serve.program.is_uwsgi
    lines = seen.splitlines()
    here = lines.index(str(Path(__file__).parent / "apps"))
    assert lines[here + 1] == "/dev/null"
    # The shell itself keeps its script open.
    numbers = [line for line in lines[here + 2 :] if line.isdigit()]
    assert set(numbers) <= {"0", "1", "2", "10", "255"}, seen
    stat = next(line for line in lines if line.count(" ") > 40)
    pid, (group, session) = int(stat.split()[0]), map(int, stat.rsplit(")", 1)[1].split()[2:4])
    assert pid == group == session and processes.look(pid).parent == server.pid
    assert lines[-1] == "a b"


@BOTH
@pytest.mark.parametrize("beside", ["daemon", "cron", "spooler", "emperor"])
def test_a_server_without_a_socket_has_no_workers_and_runs_what_is_beside_it(serve, beside, daemon, tmp_path):
    (tmp_path / "beside").mkdir()
    attached = ["--attach-daemon", daemon.command]
    arguments = {
        "daemon": attached,
        "cron": ["--cron", f"-1 -1 -1 -1 -1 echo $$ started >>{daemon.record}"],
        "spooler": ["--spooler", tmp_path / "beside", *attached],
        "emperor": ["--emperor", tmp_path / "beside", *attached],
    }[beside]
    server = serve("--master", "--processes", 2, "--stats", tcp(), *arguments)
    daemon.wait(context=server.log)
    assert server.stats()["workers"] == []
    if not serve.program.is_uwsgi and beside != "cron":
        server.send(signal.SIGHUP)
        daemon.wait(count=2, context=server.log)
        assert server.stats()["workers"] == []
    server.stop()


def test_an_application_without_a_socket_and_nothing_beside_it_is_a_mistake(serve):
    server = serve.run("--master", "--wsgi-file", "foobar.py", "--mules", 1)
    assert "no address to serve on" in server.log()


def test_a_program_may_open_as_many_files_as_the_server_could_at_its_start(serve, tmp_path, program):
    address = tcp()
    command = [
        program.path, "--http-socket", address, "--wsgi-file", "foobar.py",
        "--attach-daemon", f"ulimit -Sn >{tmp_path}/limit; exec sleep 1000",
    ]  # fmt: skip
    server = subprocess.Popen(
        ["sh", "-c", 'ulimit -Sn 789; exec "$@"', "sh", *command], cwd=Path(__file__).parent / "apps", stderr=subprocess.DEVNULL
    )
    try:
        until(lambda: (tmp_path / "limit").exists() and (tmp_path / "limit").read_text(), "it has looked")
        assert (tmp_path / "limit").read_text() == "789\n"
    finally:
        server.terminate()
        server.wait()


@BOTH
def test_one_that_ends_is_started_again_and_the_stats_say_so(serve, daemon):
    server = server_of(serve, "--attach-daemon", daemon.command)
    (first,) = daemon.wait(context=server.log)
    os.kill(first, signal.SIGKILL)
    second = daemon.wait(count=2, context=server.log)[1]
    document = server.wait_stats(lambda stats: stats.get("daemons") and stats["daemons"][0]["pid"] == second, "the stats know it")
    assert document["daemons"][0]["cmd"] == daemon.command
    if not serve.program.is_uwsgi:
        assert document["daemons"][0]["respawns"] == 1
        assert document["daemons"][0]["status"] == "running"


@BOTH
def test_one_that_dies_at_once_again_and_again_is_throttled(serve, tmp_path):
    record = tmp_path / "starts"
    server = server_of(serve, "--attach-daemon", f"date +%s.%N >>{record}; exit 3")
    if serve.program.is_uwsgi:
        server.logged("throttling .* for 2 seconds")
        return
    for delay in (1, 2, 3):
        server.logged(f"ended: exit status 3; starting it again in {delay} s")
    # One that ends late on a busy machine is started again without a delay.
    ends = server.logged(r"ended: exit status 3; starting it again(?: in (\d+) s)?$")
    delays = [int(end[1] or 0) for end in ends]
    until(lambda: len(record.read_text().splitlines()) > len(delays), "it is started once more", context=server.log)
    starts = [float(line) for line in record.read_text().splitlines()]
    # Each start is written down before its end, from which the delay counts; the clock may be a little slower.
    assert all(later - earlier > 0.99 * delay for earlier, later, delay in zip(starts, starts[1:], delays)), (starts, delays)


@BOTH
def test_one_that_ignores_its_signal_is_killed_with_all_its_group_when_the_server_stops(serve, tmp_path):
    record = tmp_path / "record"
    ignoring = f"trap '' TERM; sh -c \"trap '' TERM; echo >>{record}; while :; do sleep 0.1; done\" & wait; wait; wait"
    server = server_of(serve, "--attach-daemon", ignoring)
    until(record.exists, "it runs", context=server.log)
    # A worker of uWSGI that is still starting does not notice that it is told to stop.
    assert http.get(server.listens[0], "/").status == 200
    server.send(signal.SIGTERM)
    server.wait_exit()
    server.wait_gone()
    server.logged("did not (leave|die) in time")


@pytest.mark.only_rwsgi(why="uWSGI waits for the leader of a group alone")
def test_what_a_leader_leaves_of_its_group_is_killed_too(serve, tmp_path):
    record = tmp_path / "record"
    ignoring = f"sh -c \"trap '' TERM; echo >>{record}; while :; do sleep 0.1; done\" & wait"
    server = server_of(serve, "--attach-daemon", ignoring)
    until(record.exists, "it runs", context=server.log)
    server.send(signal.SIGTERM)
    assert server.wait_exit() == 0
    server.wait_gone()


@BOTH
def test_a_killed_master_leaves_none_behind(serve, daemon):
    server = server_of(serve, "--attach-daemon", daemon.command, "--no-orphans")
    (pid,) = daemon.wait(context=server.log)
    # A worker of uWSGI that is still starting does not notice that its master is gone.
    assert http.get(server.listens[0], "/").status == 200
    server.send(signal.SIGKILL)
    until(lambda: not processes.alive(pid), "it is gone")
    server.wait_gone()


@pytest.mark.only_rwsgi(why="uWSGI kills the shell alone")
def test_a_killed_master_leaves_no_program_behind_that_the_shell_would_have_started(serve):
    server = server_of(serve, "--attach-daemon", "sleep 1000", "--no-orphans")
    until(lambda: any(p.command == "sleep 1000" for p in server.processes()), "it runs", context=server.log)
    server.send(signal.SIGKILL)
    server.wait_gone()


@BOTH
def test_a_reload_starts_it_again_with_its_own_signal_and_a_stop_ends_it_with_the_other(serve, daemon):
    # It is not killed before it has written down its signal.
    server = server_of(serve, "--attach-daemon2", f"cmd={daemon.command},reloadsignal=1", "--reload-mercy", 25)
    (first,) = daemon.wait(context=server.log)
    # A worker of uWSGI that is still starting does not notice that it is told to leave.
    assert http.get(server.arguments[1], "/").status == 200
    server.send(signal.SIGHUP)
    second = daemon.wait(count=2, context=server.log)[1]
    assert daemon.lived("1") == [first] and not processes.alive(first)
    # A uWSGI that is told to stop while it starts does not.
    assert http.get(server.arguments[1], "/").status == 200
    server.wait_stats(lambda stats: stats.get("daemons") and stats["daemons"][0]["pid"] == second, "the stats know it")
    server.send(signal.SIGTERM)
    server.wait_exit()
    assert daemon.lived("15") == [second]


@pytest.mark.only_rwsgi(why="its fifo has other letters, and it has no fork server")
def test_what_concerns_the_workers_alone_leaves_it_alone(serve, daemon, tmp_path):
    fifo = tmp_path / "fifo"
    server = server_of(serve, "--attach-daemon", daemon.command, "--master-fifo", fifo)
    (pid,) = daemon.wait(context=server.log)
    fifo.write_text("c")
    server.logged("generation 2 takes over")
    server.wait_stats(lambda stats: all(w["generation"] == 2 and w["accepting"] for w in stats["workers"]), "reloaded")

    def loaders() -> list[int]:
        return [process.pid for process in server.processes() if "fork" in process.command]

    until(lambda: len(loaders()) == 1, "the one of the first generation has left", context=server.log)
    os.kill(loaders()[0], signal.SIGKILL)
    server.logged("generation 3 takes over")
    assert processes.alive(pid) and daemon.lived() == [pid] and not daemon.lived("15")


@pytest.mark.only_rwsgi(why="uWSGI ends the programs first")
def test_a_stop_ends_it_when_the_workers_have_left(serve, daemon):
    server = server_of(serve, "--attach-daemon", daemon.command)
    daemon.wait(context=server.log)
    # The program may run before the worker does.
    assert http.get(server.listens[0], "/").status == 200
    server.send(signal.SIGTERM)
    assert server.wait_exit() == 0
    log = server.log()
    assert 0 < log.index("worker 1 (pid") < log.index("is sent signal 15"), log
    assert re.search(r"worker 1 .*has left[\s\S]*is sent signal 15", log), log


@BOTH
def test_a_changed_file_sends_it_its_stop_signal(serve, daemon, tmp_path):
    touched = tmp_path / "touched"
    touched.write_text("")
    server = server_of(serve, "--attach-daemon2", f"cmd={daemon.command},touch=/nowhere;{touched}")
    (first,) = daemon.wait(context=server.log)
    # When the server has looked first nothing tells.
    until(lambda: touched.write_text(touched.read_text() + "x") and daemon.lived("15"), "it was sent the signal", context=server.log)
    assert daemon.lived("15")[0] == first
    daemon.wait(count=2, context=server.log)


@BOTH
def test_the_server_ends_with_a_control_daemon(serve, daemon):
    server = server_of(serve, "--attach-control-daemon", daemon.command)
    (pid,) = daemon.wait(context=server.log)
    # A worker of uWSGI that is still starting does not notice that it is told to stop.
    assert http.get(server.listens[0], "/").status == 200
    os.kill(pid, signal.SIGTERM)
    assert server.wait_exit() == 0
    assert daemon.lived() == [pid]


@BOTH
def test_one_that_may_reads_the_standard_input(serve, tmp_path):
    (tmp_path / "input").write_text("hello")
    # uWSGI puts /dev/null in the place of its own.
    more = ["--honour-stdin"] if serve.program.is_uwsgi else []
    command = serve.program.command(
        ["--http-socket", tcp(), "--wsgi-file", "foobar.py", "--master", "--daemons-honour-stdin", *more]
        + ["--attach-daemon", f"cat >>{tmp_path}/output; exec sleep 1000"]
    )
    with (tmp_path / "input").open() as file:
        server = subprocess.Popen(command, stdin=file, cwd=Path(__file__).parent / "apps", stderr=subprocess.DEVNULL)
    try:
        until(lambda: (tmp_path / "output").exists() and (tmp_path / "output").read_text() == "hello", "it has read")
    finally:
        server.terminate()
        server.wait()


@pytest.mark.only_rwsgi(why="uWSGI opens /dev/null as that user, who may not everywhere")
def test_one_can_be_given_another_user_and_directory(serve, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    server = server_of(serve, "--attach-daemon2", "cmd=echo I am $(id -u) $(id -g) in $PWD; exec sleep 1000,uid=33,gid=34,chdir=/")
    server.logged("^I am 33 34 in /$")


class Smart(Daemon):
    """A program that is known by its pidfile, and outlives servers: it is killed in the end."""

    def __init__(self, directory: Path, text: str = DAEMON) -> None:
        super().__init__(directory, "smart", text)
        self.pidfile = directory / "smart.pid"

    def running(self) -> int | None:
        """The living process that its pidfile names."""
        text = self.pidfile.read_text().strip() if self.pidfile.exists() else ""
        return int(text) if text and processes.alive(int(text)) else None

    def close(self) -> None:
        for pid in self.lived():
            processes.kill(pid)


@pytest.fixture
def smart(tmp_path, serve):
    # Before the servers are looked at for what they have left behind.
    smart = Smart(tmp_path)
    yield smart
    smart.close()


@BOTH
def test_one_with_a_pidfile_outlives_reloads_and_the_server_and_is_found_again(serve, smart):
    # So many looks at the pidfile, one a second, until it is started again. uWSGI takes as many when it has died.
    looks = 3 if serve.program.is_uwsgi else 20
    arguments = ["--smart-attach-daemon2", f"{smart.pidfile},{looks} {smart.command}"]
    server = server_of(serve, *arguments)
    (pid,) = smart.wait(context=server.log)
    until(lambda: smart.running() == pid, "its pidfile names it", context=server.log)
    server.wait_stats(lambda stats: stats.get("daemons") and stats["daemons"][0]["pid"] == pid, "it is known")
    assert http.get(server.arguments[1], "/").status == 200
    server.send(signal.SIGHUP)
    server.logged("generation 2 takes over" if not serve.program.is_uwsgi else "found valid/active pidfile")
    assert http.get(server.arguments[1], "/").status == 200
    server.send(signal.SIGTERM)
    server.wait_exit()
    assert smart.running() == pid and not smart.lived("15")
    again = server_of(serve, *arguments)
    again.wait_stats(lambda stats: stats.get("daemons") and stats["daemons"][0]["pid"] == pid, "it is known")
    os.kill(pid, signal.SIGKILL)
    second = smart.wait(count=2, context=again.log)[1]
    until(lambda: smart.running() == second, "its pidfile names the new one", context=again.log)
    assert smart.lived() == [pid, second]
    assert http.get(again.arguments[1], "/").status == 200
    again.send(signal.SIGTERM)
    again.wait_exit()
    assert smart.running() == second


@BOTH
def test_one_that_goes_to_the_background_by_itself_is_known_by_its_pidfile(serve, smart):
    daemonize = smart.script.with_suffix(".start.sh")
    daemonize.write_text(f"setsid sh {smart.script} &\necho $! >{smart.pidfile}\n")
    server = server_of(serve, "--attach-daemon2", f"cmd=sh {daemonize},pidfile={smart.pidfile},freq=3,notifypid=1")
    (pid,) = smart.wait(context=server.log)
    server.wait_stats(lambda stats: stats.get("daemons") and stats["daemons"][0]["pid"] == pid, "it is known by its pidfile")
    os.kill(pid, signal.SIGKILL)
    second = smart.wait(count=2, context=server.log)[1]
    server.wait_stats(lambda stats: stats.get("daemons") and stats["daemons"][0]["pid"] == second, "the new one is known")
    assert http.get(server.arguments[1], "/").status == 200
    server.send(signal.SIGTERM)
    server.wait_exit()
    until(lambda: smart.lived("15") == [second], "it was told of the server's end", context=server.log)


@pytest.mark.only_rwsgi(why="it knows no legion either, or runs the program")
def test_what_is_for_one_machine_of_a_legion_is_refused_with_the_reason(serve):
    server = serve.run("--http-socket", tcp(), "--wsgi-file", "foobar.py", "--legion-attach-daemon", "l sleep 9")
    assert server.process.returncode == 1
    assert "every machine would do the work" in server.log()
