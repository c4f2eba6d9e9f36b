"""Hooks: what runs at which moment, where, as whom, and what a failure does; the same as uWSGI where it can be."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import threading

import pytest

from rig import http, processes, stats
from rig.addresses import tcp
from rig.each import BOTH, servers
from rig.other_user import place, www_data
from rig.server import Servers
from rig.waiting import until

APP = """
with open("{seq}", "a") as seq:
    seq.write("app\\n")

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""
PHASES = ["asap", "pre-jail", "post-jail", "in-jail", "as-root", "as-user", "pre-app", "post-app", "as-user-atexit"]
OF_PROCESSES = "accepting accepting-once accepting1 accepting1-once post-fork as-mule as-gateway master-start".split()


@pytest.fixture(params=BOTH)
def each(request, program, venv_bin, tmp_path):
    started = servers(request.param, program, venv_bin, tmp_path)
    yield started
    started.stop_all()


class Site:
    """A directory with an application, and a file in which hooks write what they are."""

    def __init__(self, directory, lines, **kept):
        self.home, self.seq = directory / "home", directory / "seq"
        self.home.mkdir()
        self.seq.touch()
        self.seq.chmod(0o666)
        (self.home / "app.py").write_text(APP.format(seq=self.seq))
        self.ini = directory / "site.ini"
        self.address, self.stats = tcp(), kept.get("stats")
        text = ["[uwsgi]", "master = true", f"http-socket = {self.address}", f"chdir = {self.home}", "wsgi-file = app.py"]
        text += [f"{name.replace('_', '-')} = {value}" for name, value in kept.items()]
        self.ini.write_text("\n".join([*text, *lines]) + "\n")

    def note(self, what):
        """A command that writes down that it ran, as whom and where."""
        return f"echo {what} `id -u` `pwd` $COLOUR >> {self.seq}"

    def seen(self):
        return self.seq.read_text().splitlines()


def hooks_of(directory, seq):
    """A hook and a command in every phase that has both."""
    note = f"`id -u` `pwd` $COLOUR >> {seq}"
    for phase in PHASES:
        # The other way round, as their order in a phase is that of their kinds.
        yield f"exec-{phase} = echo exec-{phase} {note}"
        yield f"hook-{phase} = exec:echo hook-{phase} {note}"
    for phase in OF_PROCESSES:
        yield f"hook-{phase} = exec:echo hook-{phase} {note}"


def first(lines):
    """The first of each phase: uWSGI runs those of as-root and as-user again and again while it stays root."""
    found = {}
    for line in lines:
        found.setdefault(line.split()[0], line)
    return list(found.values())


def test_every_phase_comes_in_its_order_and_place(each, tmp_path):
    site = Site(tmp_path, hooks_of(tmp_path, tmp_path / "seq"), processes=2, mule="true", http=tcp(), env="COLOUR=red")
    server = each("--ini", site.ini, cwd=tmp_path, listens=[site.address])
    me, here, home = os.getuid(), tmp_path, site.home
    as_root = ["as-root", "as-user"] if me == 0 else []
    counted = {"post-fork": 2, "accepting": 2, "accepting-once": 2} | dict.fromkeys(
        ["accepting1", "accepting1-once", "as-mule", "as-gateway", "master-start"], 1
    )

    def expected(names, where):
        return [f"{kind}-{name} {me} {where} red" for name in names for kind in ("hook", "exec")]

    loaded = [*expected(["pre-app"], home), "app", *expected(["post-app"], home)]

    def begun(before):
        def all_there():
            seen = [line for line in site.seen()]
            return all(seen.count(f"hook-{name} {me} {home} red") >= count for name, count in counted.items())

        until(all_there, "the hooks of all processes", context=lambda: site.seq.read_text() + server.log())
        seen = site.seen()
        of_processes = {f"hook-{name} {me} {home} red" for name in OF_PROCESSES}
        assert first(line for line in seen if line not in of_processes) == [*before, *loaded]
        for name, count in counted.items():
            assert seen.count(f"hook-{name} {me} {home} red") == count, name

    begun(expected(["asap", "pre-jail", "in-jail", *as_root], here))
    site.seq.write_text("")
    server.send(signal.SIGHUP)
    if not each.program.is_uwsgi:
        # The http router outlives a reload.
        del counted["as-gateway"]
    begun([*expected(["as-user-atexit"], home), *expected(["asap", "in-jail", *as_root], here)])
    assert http.get(site.address, "/").text == "hello"
    site.seq.write_text("")
    server.stop()
    assert site.seen() == expected(["as-user-atexit"], home)


@pytest.mark.parametrize("option", ["exec-asap", "exec-pre-jail", "exec-in-jail", "exec-as-root", "exec-as-user"])
@pytest.mark.parametrize("failure", ["exit 3", "/no/such/program"])
def test_a_command_that_fails_before_anything_serves_ends_the_start(each, tmp_path, option, failure):
    if os.getuid() != 0 and "as-" in option.removeprefix("exec-as"):
        pytest.skip("these come for root alone")
    site = Site(tmp_path, [f"{option} = {failure}", f"exec-as-user-atexit = touch {tmp_path}/end"])
    server = each.run("--ini", site.ini, cwd=tmp_path)
    assert server.wait_exit() == 1
    assert site.seen() == []
    server.logged("exit")


@pytest.mark.parametrize("option", ["exec-pre-app", "exec-post-app"])
def test_a_command_that_fails_around_the_load_ends_the_start(each, tmp_path, option):
    site = Site(tmp_path, [f"{option} = exit 3"])
    assert each.run("--ini", site.ini, cwd=tmp_path).wait_exit() == 1
    assert site.seen() == (["app"] if option == "exec-post-app" else [])


@pytest.mark.only_rwsgi(why="uWSGI has served for a moment by then, and its status is 0")
@pytest.mark.parametrize(
    "phase", ["pre-app", "post-app", "post-fork", "accepting", "accepting1-once", "as-mule", "as-gateway", "master-start"]
)
def test_a_hook_that_fails_in_a_process_ends_the_server(serve, tmp_path, phase):
    site = Site(tmp_path, [f"hook-{phase} = exec:exit 3"], mule="true", http=tcp())
    server = serve.run("--ini", site.ini, cwd=tmp_path)
    assert server.wait_exit() == 1
    assert server.lines(f"{phase}: 'exec:exit 3' failed: exit status"), server.log()


@pytest.mark.only_rwsgi(why="uWSGI ends with the reload")
def test_a_hook_that_fails_at_a_reload_leaves_the_old_generation_serving(serve, tmp_path):
    site = Site(tmp_path, [f"hook-pre-app = exec:test ! -e {tmp_path}/broken"])
    server = serve("--ini", site.ini, cwd=tmp_path, listens=[site.address])
    http.get(site.address, "/")
    (tmp_path / "broken").touch()
    server.send(signal.SIGHUP)
    server.logged("generation 1 goes on")
    assert http.get(site.address, "/").text == "hello"


def test_actions_do_what_their_names_say(each, tmp_path):
    here = tmp_path / "made"
    actions = [
        f"mkdir:{here}",
        f"write:{here}/write one",
        f"append:{here}/write  two",
        f"writen:{here}/lines first",
        f"appendn:{here}/lines second one",
        f"create:{here}/empty",
        f"create:{here}/gone",
        f"unlink:{here}/gone",
        f"chmod:{here}/empty 640",
        f"sticky:{here}",
        f"chdir:{here}",
        "safeexec:exit 7",
        f"exec:touch `pwd`/here",
        "print:this is printed",
        "!print:this is private",
        "putenv:SHAPE=round",
        f"exec:echo $SHAPE > {here}/shape",
        f"chown2:{here}/empty {os.getuid()} {os.getgid()}",
    ]
    site = Site(tmp_path, [f"hook-in-jail = {action}" for action in actions])
    server = each("--ini", site.ini, cwd=tmp_path, listens=[site.address])
    found = {path.name: path.read_text() for path in here.iterdir()}
    assert found == {"write": "one two", "lines": "first\nsecond one\n", "empty": "", "here": "", "shape": "round\n"}
    assert (here / "empty").stat().st_mode & 0o777 == 0o640
    assert here.stat().st_mode & 0o1000
    assert server.lines("this is printed") and server.lines("this is private")
    assert not any("print:this is private" in line for line in server.log().splitlines())


def test_what_a_hook_puts_in_the_environment_the_application_has(each, tmp_path):
    site = Site(tmp_path, ["hook-asap = putenv:SHAPE=round"])
    (site.home / "app.py").write_text(
        "import os\n"
        "def application(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [os.environ['SHAPE'].encode()]\n"
    )
    each("--ini", site.ini, cwd=tmp_path, listens=[site.address])
    assert http.get(site.address, "/").text == "round"


def test_text_is_written_to_a_file_and_commands_run_by_another_shell(each, tmp_path):
    shell = tmp_path / "shell"
    shell.write_text(f'#!/bin/sh\necho "$2" > {tmp_path}/asked\n')
    shell.chmod(0o755)
    lines = [f"file-write = {tmp_path}/written=a=b c", "binsh = /no/such/shell", f"binsh = {shell}", "exec-in-jail = do it"]
    site = Site(tmp_path, lines)
    each("--ini", site.ini, cwd=tmp_path, listens=[site.address])
    assert (tmp_path / "written").read_text() == "a=b c\n"
    assert (tmp_path / "asked").read_text() == "do it\n"


def test_what_comes_after_a_jail_runs_for_a_server_that_says_it_is_in_one(each, tmp_path):
    if os.getuid() != 0:
        pytest.skip("it comes for root alone")
    phases = ["post-jail", "as-root", "in-jail"]
    site = Site(tmp_path, ["jailed = true", *(f"exec-{phase} = echo {phase} >> {tmp_path}/seq" for phase in phases)])
    each("--ini", site.ini, cwd=tmp_path, listens=[site.address])
    assert first(line for line in site.seen() if line != "app") == ["in-jail", "post-jail", "as-root"]


@pytest.mark.parametrize("hook", ["nothing:at all", "no colon", "mount:none /mnt"])
def test_an_action_that_there_is_not_ends_the_start(serve, tmp_path, hook):
    site = Site(tmp_path, [f"hook-asap = {hook}"])
    assert serve.run("--ini", site.ini, cwd=tmp_path).wait_exit() == 1


@pytest.mark.only_rwsgi(why="uWSGI calls C symbols")
def test_python_is_called_where_there_is_python(serve, tmp_path):
    lines = [f"call-{phase} = helper.note" for phase in ("pre-app", "post-app")]
    lines += ["hook-post-fork = callint:helper.note 7", "hook-accepting = call:helper:note some text"]
    site = Site(tmp_path, lines)
    (site.home / "helper.py").write_text(f"def note(*what):\n    print(what, file=open('{site.seq}', 'a'))\n")
    serve("--ini", site.ini, cwd=tmp_path, listens=[site.address])
    http.get(site.address, "/")
    assert site.seen() == ["()", "app", "()", "(7,)", "('some text',)"]


@pytest.mark.only_rwsgi(why="uWSGI calls C symbols")
@pytest.mark.parametrize("hook", ["call:helper.fail", "callret:helper.seven"])
def test_python_that_raises_or_returns_a_number_ends_the_start(serve, tmp_path, hook):
    site = Site(tmp_path, [f"hook-pre-app = {hook}"])
    (site.home / "helper.py").write_text("def fail():\n    raise ValueError('no')\ndef seven():\n    return 7\n")
    server = serve.run("--ini", site.ini, cwd=tmp_path)
    assert server.wait_exit() == 1
    assert server.lines("ValueError: no" if "fail" in hook else "it returned 7")


SLOW = """
import os, time
def application(environ, start_response):
    open("begun", "w").close()
    while not os.path.exists("go"):
        time.sleep(0.01)
    start_response("200 OK", [])
    return [b"slow"]
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_is_given_to_a_graceful_stop_lets_requests_finish(each, tmp_path, number):
    # The log names a hook before it is run: the second one shows that the first one is over.
    is_set = tmp_path / "set"
    hooks = [f"unix_signal:{int(number)} gracefully_kill_them_all", f"create:{is_set}"]
    site = Site(tmp_path, [f"hook-master-start = {hook}" for hook in hooks])
    (site.home / "app.py").write_text(SLOW)
    server = each("--ini", site.ini, cwd=tmp_path, listens=[site.address])
    answers = []
    asking = threading.Thread(target=lambda: answers.append(http.get(site.address, "/").text))
    asking.start()
    until((site.home / "begun").exists, "the request has begun")
    until(is_set.exists, "the signal has its meaning", context=server.log)
    server.send(number)
    server.logged("graceful|stopping")
    (site.home / "go").touch()
    asking.join()
    assert answers == ["slow"]
    assert server.wait_exit() == 0


@pytest.mark.parametrize(
    "function, said", [("grace_them_all", "app\napp\n"), ("kill_them_all", "app\n"), ("stats", "app\n")]
)
def test_a_signal_gets_the_meaning_of_a_function(each, tmp_path, function, said):
    is_set = tmp_path / "set"
    site = Site(tmp_path, [f"hook-master-start = {hook}" for hook in (f"unix_signal:12 {function}", f"create:{is_set}")])
    server = each("--ini", site.ini, cwd=tmp_path, listens=[site.address])
    http.get(site.address, "/")
    until(is_set.exists, "the signal has its meaning", context=server.log)
    server.send(signal.SIGUSR2)
    if function == "kill_them_all":
        assert server.wait_exit() == 0
    until(lambda: site.seq.read_text() == said, "what it does", context=lambda: site.seq.read_text() + server.log())
    if function == "stats":
        server.logged("requests")


def test_a_function_that_there_is_not_is_an_error(serve, tmp_path):
    site = Site(tmp_path, ["hook-master-start = unix_signal:15 no_such_function"])
    assert serve.run("--ini", site.ini, cwd=tmp_path).wait_exit() in (0, 1)


def test_root_runs_hooks_before_the_drop_of_privileges_and_the_user_after(program_for_all, tmp_path):
    user = www_data()
    directory = place()
    try:
        lines = [f"exec-{phase} = echo {phase} `id -u` `id -G` >> {directory}/seq" for phase in PHASES]
        lines += ["hook-accepting = exec:echo accepting `id -u` `id -G` >> " + str(directory / "seq")]
        site = Site(directory, lines, uid=user.pw_name, gid=user.pw_gid)
        started = Servers(program_for_all, tmp_path)
        try:
            server = started("--ini", site.ini, cwd=directory, listens=[site.address])
            until(lambda: any("accepting" in line for line in site.seen()), "the worker's hook")
            server.stop()
        finally:
            started.stop_all()
        ids = {line.split()[0]: line.split()[1:] for line in site.seen() if line != "app"}
        for phase in ("asap", "pre-jail", "in-jail", "as-root"):
            assert ids[phase][0] == "0", (phase, ids)
        for phase in ("as-user", "pre-app", "post-app", "accepting", "as-user-atexit"):
            assert ids[phase][0] == str(user.pw_uid) and "0" not in ids[phase], (phase, ids)
    finally:
        shutil.rmtree(directory)


def test_a_respawned_worker_does_not_run_what_comes_once(each, tmp_path):
    phases = ["accepting", "accepting-once", "accepting1", "accepting1-once"]
    site = Site(tmp_path, [f"hook-{phase} = appendn:{tmp_path}/seq {phase} $" for phase in phases], stats=tcp())
    server = each("--ini", site.ini, cwd=tmp_path, listens=[site.address])
    until(lambda: len(site.seen()) == 5, "the first worker's hooks", context=server.log)
    site.seq.write_text("")
    (worker,) = stats.read(site.stats)["workers"]
    processes.kill(worker["pid"])
    until(lambda: len(site.seen()) >= 2, "the next worker's hooks", context=server.log)
    assert http.get(site.address, "/").text == "hello"
    assert [line.split()[0] for line in site.seen()] == ["accepting", "accepting1"]


def test_with_lazy_apps_each_worker_runs_the_hooks_of_the_load(each, tmp_path):
    phases = ["pre-app", "post-app", "post-fork", "accepting"]
    site = Site(tmp_path, [f"hook-{phase} = appendn:{tmp_path}/seq {phase}" for phase in phases], lazy_apps="true")
    server = each("--ini", site.ini, cwd=tmp_path, listens=[site.address])
    until(lambda: len(site.seen()) == 5, "the hooks", context=server.log)
    assert site.seen() == ["post-fork", "pre-app", "app", "post-app", "accepting"]


def test_commands_of_hooks_have_nothing_open_but_the_standard_descriptors(serve, tmp_path):
    phases = ["asap", "as-root", "pre-app", "post-app", "post-fork", "accepting", "as-gateway", "as-mule", "master-start"]
    command = "{ for fd in /proc/$$/fd/*; do readlink $fd; done; true; }"
    lines = [f"hook-{phase} = exec:{command} > {tmp_path}/{phase}.fds" for phase in phases]
    site = Site(tmp_path, lines, http=tcp(), mule="true", logto=tmp_path / "log")
    server = serve("--ini", site.ini, cwd=tmp_path, listens=[site.address])
    ran = [phase for phase in phases if phase != "as-root" or os.getuid() == 0]
    until(lambda: all((tmp_path / f"{phase}.fds").exists() for phase in ran), "every hook", context=server.log)
    http.get(site.address, "/")
    for phase in ran:
        until(lambda: len((tmp_path / f"{phase}.fds").read_text().splitlines()) >= 3, phase)
        open_there = (tmp_path / f"{phase}.fds").read_text()
        assert "socket:" not in open_there and "memfd" not in open_there and "anon_inode" not in open_there, phase


def test_a_start_waits_for_what_is_to_come(each, tmp_path):
    if os.getuid() != 0:
        pytest.skip("uWSGI waits as root alone")
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    at = f"127.0.0.1:{listener.getsockname()[1]}"
    lines = [f"wait-for-file = {tmp_path}/file", "wait-for-interface = lo", f"wait-for-socket = {at}"]
    site = Site(tmp_path, lines)
    server = each.start("--ini", site.ini, cwd=tmp_path, listens=[site.address])
    server.logged(f"waiting .*{tmp_path}/file")
    assert site.seen() == []
    (tmp_path / "file").touch()
    server.logged(f"waiting .*{at}")
    assert site.seen() == []
    listener.listen()
    server.wait_ready()
    assert http.get(site.address, "/").text == "hello"
    listener.close()


@pytest.mark.parametrize("option", ["wait-for-fs", "wait-for-socket"])
def test_what_does_not_come_in_time_ends_the_start(each, tmp_path, option):
    if os.getuid() != 0:
        pytest.skip("uWSGI waits as root alone")
    what = tmp_path / "never" if option == "wait-for-fs" else tcp()
    site = Site(tmp_path, [f"{option} = {what}", f"{option}-timeout = 1"])
    assert each.run("--ini", site.ini, cwd=tmp_path).wait_exit() == 1
    assert site.seen() == []


@pytest.mark.parametrize("option", ["flock", "flock2"])
@pytest.mark.parametrize("holder", BOTH)
def test_a_file_that_another_server_holds_ends_the_start(each, program, venv_bin, tmp_path, option, holder):
    lock = tmp_path / "lock"
    lock.touch()
    site = Site(tmp_path, [f"{option} = {lock}"])
    (tmp_path / "holder").mkdir()
    other = Site(tmp_path / "holder", [f"{option} = {lock}"])
    holders = servers(holder, program, venv_bin, tmp_path / "holder")
    try:
        holding = holders("--ini", other.ini, cwd=tmp_path, listens=[other.address])
        assert each.run("--ini", site.ini, cwd=tmp_path).wait_exit() == 1
        holding.destroy()
        holding.wait_gone()
    finally:
        holders.stop_all()
    each("--ini", site.ini, cwd=tmp_path, listens=[site.address])
    assert http.get(site.address, "/").text == "hello"
