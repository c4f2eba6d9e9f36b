"""Hooks of the emperor and of vassals for what their emperor orders; the same as uWSGI's where it has them."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from rig import http, other_user, stats
from rig.addresses import listening, tcp
from rig.each import BOTH, servers
from rig.server import Servers
from rig.waiting import DEADLINE, until

APP = """
import os
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [os.environ.get(environ["PATH_INFO"].strip("/"), "-").encode()]
"""


@pytest.fixture(params=BOTH)
def each(request, program, venv_bin, tmp_path):
    started = servers(request.param, program, venv_bin, tmp_path)
    yield started
    started.stop_all()


class Empire:
    """An emperor with a configuration file, one vassal, and a file in which hooks write what they are."""

    def __init__(self, place: Path) -> None:
        self.place, self.vassals, self.seq = place, place / "vassals", place / "seq"
        self.vassals.mkdir(exist_ok=True)
        self.seq.touch()
        self.seq.chmod(0o666)
        (place / "app.py").write_text(APP)
        self.stats, self.address = tcp(), tcp()
        self.server = None

    def vassal(self, *lines: str) -> Path:
        text = ["[uwsgi]", f"http-socket = {self.address}", "master = true", f"wsgi-file = {self.place}/app.py", *lines]
        path = self.vassals / "one.ini"
        path.write_text("\n".join(text) + "\n")
        return path

    def start(self, serve, *lines: str) -> None:
        text = ["[uwsgi]", "emperor = vassals", "emperor-freq = 1", f"emperor-stats = {self.stats}", *lines]
        (self.place / "emperor.ini").write_text("\n".join(text) + "\n")
        self.server = serve("--ini", "emperor.ini", cwd=self.place, listens=[self.stats])

    def note(self, what: str) -> str:
        """A command that writes down that it ran."""
        return f"echo {what} >> {self.seq}"

    def seen(self) -> list[str]:
        return self.seq.read_text().splitlines()

    def has_seen(self, line: str) -> None:
        until(lambda: line in self.seen(), f"'{line}' was written", context=lambda: f"{self.seen()}\n{self.server.log()}")

    def serves(self) -> None:
        until(lambda: listening(self.address), "the vassal serves", context=self.server.log)

    def pid(self) -> int:
        return stats.read(self.stats)["vassals"][0]["pid"]


@pytest.fixture
def empire(tmp_path) -> Empire:
    return Empire(tmp_path)


def test_hooks_run_around_the_start_of_a_vassal(each, empire):
    file = empire.vassal()
    empire.start(
        each,
        f"hook-emperor-start = exec:{empire.note('emperor-start `pwd`')}",
        f"hook-as-emperor = exec:{empire.note('hook-as-emperor')}",
        "hook-as-emperor = putenv:SET=here",
        f"exec-as-emperor = {empire.note('exec-as-emperor $UWSGI_VASSAL_CONFIG $UWSGI_VASSAL_PID $UWSGI_VASSAL_UID $SET')}",
        f"exec-as-vassal = {empire.note('exec-as-vassal $COLOUR `pwd`')}",
        "hook-as-vassal = putenv:COLOUR=red",
        f"hook-as-vassal = exec:{empire.note('hook-as-vassal $COLOUR')}",
    )
    empire.serves()
    assert http.get(empire.address, "/COLOUR").text == "red", "a hook has set it for the vassal"
    empire.has_seen(f"exec-as-emperor one.ini {empire.pid()} {file.stat().st_uid} here")
    seen = empire.seen()
    assert seen[0] == f"emperor-start {empire.vassals}", "in the first directory, as uWSGI"
    for line in ["hook-as-emperor", "hook-as-vassal red", f"exec-as-vassal red {empire.vassals}"]:
        assert seen.count(line) == 1, seen
    assert seen.index("hook-as-vassal red") < seen.index(f"exec-as-vassal red {empire.vassals}")


def test_a_vassal_whose_hook_fails_is_not_started(each, empire):
    empire.vassal()
    empire.start(each, f"exec-as-vassal = {empire.note('tried')}; exit 3")
    until(lambda: len(empire.seen()) >= 2, "it is tried again", context=empire.server.log)
    assert not listening(empire.address)


def test_an_emperor_whose_first_hook_fails_does_not_start(each, empire):
    empire.vassal()
    empire.start(each, "hook-emperor-start = exec:until test -e go; do sleep 0.1; done; exit 3")
    (empire.vassals / "go").touch()
    assert empire.server.process.wait(DEADLINE) == 1
    assert not listening(empire.address)


def test_a_vassal_runs_hooks_when_its_emperor_orders_something(each, empire):
    file = empire.vassal(*(f"hook-emperor-{order} = exec:{empire.note(order)}" for order in ("reload", "stop")))
    empire.start(each)
    empire.serves()
    # uWSGI's waits for its first request before it listens to its emperor.
    assert http.get(empire.address, "/").status == 200
    assert empire.seen() == []
    moment = file.stat().st_mtime + 10
    os.utime(file, (moment, moment))
    empire.has_seen("reload")
    empire.serves()
    file.unlink()
    empire.has_seen("stop")
    until(lambda: not listening(empire.address), "it stops", context=empire.server.log)
    assert empire.seen() == ["reload", "stop"]


# uWSGI's emperor takes its vassals with it when it is killed.
@pytest.mark.only_rwsgi(why="uWSGI's vassals are killed with their emperor")
def test_a_vassal_that_loses_its_emperor_runs_a_hook_before_it_stops(serve, empire):
    empire.vassal(f"hook-emperor-lost = exec:test -d /proc/$PPID && {empire.note('lost')}")
    empire.start(serve)
    empire.serves()
    os.kill(empire.server.pid, signal.SIGKILL)
    empire.server.process.wait()
    empire.has_seen("lost")
    until(lambda: not empire.server.processes(), "it stops", context=empire.server.log)


def test_vassals_have_the_variables_of_their_emperor(each, empire):
    empire.vassal()
    empire.start(each, "env = COLOUR=blue", "env = UWSGI_VASSAL_CHDIR=/", "unenv = LC_ALL")
    empire.serves()
    assert http.get(empire.address, "/COLOUR").text == "blue"
    assert http.get(empire.address, "/LC_ALL").text == "-"
    assert http.get(empire.address, "/PWD").text != "/", "the name of an option is not given as it is"


def test_an_emperor_runs_the_hooks_of_a_start_and_of_its_end(each, empire):
    phases = ["asap", "pre-jail", "in-jail", "as-root"]
    empire.vassal()
    empire.start(each, *(f"exec-{phase} = {empire.note(phase)}" for phase in phases))
    empire.serves()
    expected = phases if os.getuid() == 0 else phases[:-1]
    assert empire.seen()[: len(expected)] == expected


def let_go(pipe: Path) -> bool:
    """Has the one who reads this pipe find its end; false when nobody does."""
    try:
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


@pytest.mark.only_rwsgi(why="a uWSGI emperor waits for its hooks")
def test_a_command_of_the_emperor_holds_up_no_vassal(serve, empire):
    empire.vassal()
    os.mkfifo(empire.place / "pipe")
    empire.start(serve, f"exec-as-emperor = cat {empire.place}/pipe; {empire.note('over')}")
    empire.serves()
    other = tcp()
    (empire.vassals / "two.ini").write_text(f"[uwsgi]\nhttp-socket = {other}\nwsgi-file = {empire.place}/app.py\n")
    until(lambda: listening(other), "another vassal serves", context=empire.server.log)
    for count in (1, 2):
        until(lambda: let_go(empire.place / "pipe"), "a command runs", context=empire.server.log)
        until(lambda: len(empire.seen()) == count, f"{count} are over", context=empire.server.log)


def test_hooks_of_a_vassal_have_its_rights_and_nothing_of_the_emperors(program_for_all):
    user = other_user.www_data()
    place = other_user.place()
    servers, empire = Servers(program_for_all, place), Empire(place)
    try:
        os.chown(empire.vassal(), user.pw_uid, user.pw_gid)
        descriptors = "`ls /proc/self/fd | tr '\\n' ' '`"
        empire.start(servers, "emperor-tyrant = true", f"exec-as-vassal = {empire.note('`id -u` `id -G` ' + descriptors)}")
        until(empire.seen, "a hook runs", context=empire.server.log)
        # The last is that of the directory.
        assert empire.seen()[0] == f"{user.pw_uid} {user.pw_gid} 0 1 2 3"
        empire.serves()
    finally:
        servers.stop_all()
        shutil.rmtree(place)
