"""The emperor: a server for each file of a directory; and servers as vassals, of this emperor and of uWSGI's."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from rig import http, other_user, processes, stats
from rig.addresses import listening, tcp
from rig.empire import Empire, ask, touch, try_ask
from rig.server import APPS, Servers
from rig.supervisor import Notifications
from rig.waiting import DEADLINE, until

pytestmark = pytest.mark.only_rwsgi(why="its emperor waits seconds between two starts; the interoperation is tested with it")

@pytest.fixture
def empire(serve, tmp_path) -> Empire:
    return Empire(serve, tmp_path)


def status(pid: int) -> dict[str, str]:
    """What the system says of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_each_file_is_served_by_a_vassal_until_it_is_removed(empire):
    one, first = empire.ini("one.ini", "env = NAME=one")
    second = tcp()
    app = f"{empire.place}/app.py"
    empire.write("two.yaml", f"uwsgi:\n  http-socket: {second}\n  wsgi-file: {app}\n  env: NAME=two\n")
    third = tcp()
    empire.write("three.json", json.dumps({"uwsgi": {"http-socket": third, "wsgi-file": app, "env": "NAME=three"}}))
    fourth = tcp()
    xml = f"<uwsgi><http-socket>{fourth}</http-socket><wsgi-file>{app}</wsgi-file><env>NAME=four</env></uwsgi>"
    empire.write("four.xml", xml)
    empire.write("five.ini.disabled", "[uwsgi]\n")
    empire.start()
    for address, name in [(first, "one"), (second, "two"), (third, "three"), (fourth, "four")]:
        empire.serves(address)
        assert ask(address) == name
    names = {vassal["id"] for vassal in empire.document()["vassals"]}
    assert names == {"one.ini", "two.yaml", "three.json", "four.xml"}
    one.unlink()
    empire.wait(lambda: not listening(first) and empire.vassal("one.ini") is None, "the vassal is gone")
    _, sixth = empire.ini("six.ini", "env = NAME=six")
    empire.serves(sixth)
    assert ask(sixth) == "six" and ask(second) == "two"


def test_a_touched_file_reloads_its_vassal_alone_without_a_refused_connection(empire):
    path, first = empire.ini("one.ini", "env = NAME=before")
    _, second = empire.ini("two.ini")
    empire.start()
    empire.serves(first)
    empire.serves(second)
    pid, other = ask(first, "pid"), ask(second, "pid")
    master = empire.vassal("one.ini")["pid"]
    empire.rewrite(path, path.read_text().replace("before", "after"))
    # Every connection is answered, by a worker of before or after.
    empire.wait(lambda: ask(first) == "after" and ask(first, "pid") != pid, "it has reloaded")
    assert ask(second, "pid") == other
    vassal = empire.vassal("one.ini")
    assert vassal["pid"] == master and vassal["respawns"] >= 1
    # A file that is broken changes nothing.
    empire.rewrite(path, "[uwsgi]\nmodule = missing\n")
    empire.server.logged("reload: generation 2 goes on|generation 3 failed to load")
    assert ask(first) == "after" and empire.vassal("one.ini")["pid"] == master


def test_a_broken_file_is_tried_less_and_less_often_and_at_once_when_it_is_mended(empire):
    path = empire.write("bad.ini", "[uwsgi]\nhttp-socket = nonsense:port\nmodule = missing\n")
    _, address = empire.ini("good.ini")
    empire.start("--emperor-throttle", 400, "--emperor-max-throttle", 60000)
    empire.serves(address)
    empire.server.logged(r"bad.ini \(pid \d+\) died: exit status", 3)
    empire.wait(lambda: empire.blacklist(), "it is on the blacklist")
    (entry,) = empire.blacklist()
    assert entry["id"] == "bad.ini" and entry["attempt"] >= 2 and entry["throttle_level"] >= 800
    assert entry["last_attempt"] >= entry["first_attempt"] > 0
    _, mended = empire.ini("bad.ini", "env = NAME=mended")
    empire.serves(mended)
    assert ask(mended) == "mended"
    empire.wait(lambda: not empire.blacklist(), "it is forgiven")
    path.unlink()


def test_a_vassal_that_is_killed_is_started_again(empire):
    _, address = empire.ini("one.ini", "no-orphans = true")
    empire.start()
    empire.serves(address)
    empire.wait(lambda: empire.vassal("one.ini")["loyal"] == 1, "it is loyal")
    killed = empire.running("one.ini")
    os.kill(killed, signal.SIGKILL)
    empire.wait(lambda: (empire.vassal("one.ini") or {"pid": killed})["pid"] not in (killed, -1), "another process")
    empire.serves(address)
    assert "one.ini (pid {}) died: killed by signal 9".format(killed) in empire.log()


def test_many_vassals_start_together(empire):
    addresses = [empire.ini(f"v{number}.ini", f"env = NAME={number}")[1] for number in range(12)]
    empire.start()
    for number, address in enumerate(addresses):
        empire.serves(address)
        assert ask(address) == str(number)
    empire.wait(lambda: all(vassal["loyal"] for vassal in empire.document()["vassals"]), "all are loyal")
    assert len(empire.document()["vassals"]) == 12 and empire.blacklist() == []


def test_patterns_several_emperors_and_other_extensions(empire):
    sites = [empire.place / "sites" / name for name in ("a", "b")]
    for site in sites:
        site.mkdir(parents=True)
    _, first = empire.ini("app.ini", "env = NAME=a", directory=sites[0])
    _, second = empire.ini("app.ini", "env = NAME=b", directory=sites[1])
    _, third = empire.ini("one.ini", "env = NAME=c")
    fourth = tcp()
    text = f"[uwsgi]\nhttp-socket = {fourth}\nwsgi-file = {empire.place}/app.py\nenv = NAME=d\n"
    empire.write("site.conf.ini", text)
    empire.write("site.conf.ini~", text)
    empire.start("--emperor", empire.directory, emperor="sites/*/app.ini")
    for address, name in [(first, "a"), (second, "b"), (third, "c"), (fourth, "d")]:
        empire.serves(address)
        assert ask(address) == name
    document = empire.document()
    assert document["emperor"] == ["sites/*/app.ini", str(empire.directory)]
    assert {vassal["id"] for vassal in document["vassals"]} == {
        *("sites/a/app.ini", "sites/b/app.ini", "one.ini", "site.conf.ini")
    }


def test_options_for_every_vassal(empire):
    (empire.place / "all.ini").write_text("[uwsgi]\nenv = SHARED=all\nenv = LAST=shared\n")
    (empire.place / "before.ini").write_text("[uwsgi]\nenv = FIRST=before\n")
    _, address = empire.ini("one.ini", "env = FIRST=own", "env = LAST=own", "env = NAME=%(placeholder)")
    all_ini, before = empire.place / "all.ini", empire.place / "before.ini"
    empire.start(
        *("--vassal-set", "processes=2", "--vassals-set", "placeholder=given", "--vassals-include", all_ini),
        *("--vassals-include-before", before),
    )
    empire.serves(address)
    answers = [ask(address, name) for name in ("NAME", "SHARED", "FIRST", "LAST")]
    assert answers == ["given", "all", "own", "shared"]
    # The second one need not be there when the first one serves.
    until(
        lambda: len([p for p in empire.server.processes() if short_name(p.pid).startswith("rwsgi w")]) == 2, "two workers",
        context=empire.log,
    )


def short_name(pid: int) -> str:
    """The short name of a process."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def test_hooks_run_around_each_vassal(empire):
    trace = empire.place / "trace"
    for name in ("start", "stop"):
        hook = empire.place / name
        hook.write_text(f'#!/bin/sh\necho {name} "$1" >>{trace}\n')
        hook.chmod(0o755)
    path, address = empire.ini("one.ini")
    empire.start("--vassals-start-hook", empire.place / "start", "--vassals-stop-hook", empire.place / "stop")
    empire.serves(address)
    assert trace.read_text() == "start one.ini\n"
    path.unlink()
    empire.wait(lambda: trace.read_text() == "start one.ini\nstop one.ini\n", "the stop hook has run")


def test_a_vassal_on_demand_starts_at_the_first_connection_which_it_answers(empire):
    address = tcp()
    empire.write("one.ini", f"[uwsgi]\nhttp-socket = {address}\nwsgi-file = {empire.place}/app.py\nenv = NAME=late\n")
    (empire.directory / "one.ini.socket").write_text(f"{address}\n")
    empire.start("--emperor-on-demand-extension", ".socket")
    empire.wait(lambda: empire.vassal("one.ini") is not None, "the vassal is known")
    assert empire.vassal("one.ini")["pid"] == -1 and empire.vassal("one.ini")["on_demand"] == address
    assert ask(address) == "late"
    assert processes.alive(empire.vassal("one.ini")["pid"])
    # When it leaves, it waits for the next connection.
    empire.wait(lambda: empire.vassal("one.ini")["loyal"] == 1, "it is loyal")
    os.kill(empire.running("one.ini"), signal.SIGINT)
    empire.wait(lambda: empire.vassal("one.ini")["pid"] == -1, "it waits again")
    assert ask(address) == "late"


def test_sockets_of_a_directory_or_a_command_start_vassals(empire):
    sockets = empire.place / "sockets"
    sockets.mkdir()
    app = f"wsgi-file = {empire.place}/app.py"
    empire.write("one.ini", f"[uwsgi]\nhttp-socket = {sockets}/one.socket\n{app}\nenv = NAME=one\n")
    empire.start("--emperor-on-demand-directory", "sockets")
    empire.wait(lambda: listening(f"{sockets}/one.socket"), "the socket is bound")
    assert ask(f"{sockets}/one.socket") == "one"
    empire.server.stop()
    address = tcp()
    empire.write("one.ini", f"[uwsgi]\nhttp-socket = {address}\n{app}\nenv = NAME=two\n")
    empire.start("--emperor-on-demand-exec", f"echo {address} #")
    empire.wait(lambda: listening(address), "the socket is bound")
    assert ask(address) == "two"


def test_the_emperor_stops_its_vassals_and_writes_and_removes_its_pidfiles(empire, program):
    _, address = empire.ini("one.ini")
    server = empire.start(
        *("--pidfile", empire.place / "pid", "--emperor-pidfile", empire.place / "epid", "--vacuum", "--master"),
        *("--die-on-term", "--emperor-procname", "the emperor", "--logto", empire.place / "log"),
    )
    empire.serves(address)
    for name in ("pid", "epid"):
        assert (empire.place / name).read_text().strip() == str(server.pid)
    assert Path(f"/proc/{server.pid}/cmdline").read_bytes().startswith(b"the emperor\0")
    # What a vassal logs goes there too.
    log = empire.place / "log"
    for said in ("emperor: one.ini: started", f"http-socket on {address}"):
        until(lambda said=said: said in log.read_text(), said, context=log.read_text)
    pid = ask(address, "pid")
    subprocess.run([program.path, "--reload", empire.place / "pid"], check=True)
    empire.wait(lambda: ask(address, "pid") != pid, "every vassal has reloaded")
    subprocess.run([program.path, "--stop", empire.place / "pid"], check=True)
    assert server.wait_exit() == 0
    server.wait_gone()
    assert not listening(address) and not (empire.place / "pid").exists() and not (empire.place / "epid").exists()


def test_systemd_is_told_of_the_emperor_and_not_of_its_vassals(empire, tmp_path):
    systemd = Notifications(tmp_path / "notify")
    _, address = empire.ini("one.ini")
    server = empire.start(env={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"})
    systemd.wait("READY=1")
    systemd.wait("WATCHDOG=1", 3)
    systemd.wait("STATUS=The emperor governs 1 vassals")
    empire.serves(address)
    server.stop()
    systemd.wait("STOPPING=1")
    assert sum(line == "READY=1" for line in systemd.lines()) == 1
    systemd.close()


def test_vassals_stop_when_their_emperor_is_killed(empire):
    _, address = empire.ini("one.ini")
    server = empire.start()
    empire.serves(address)
    server.send(signal.SIGKILL)
    until(lambda: not listening(address), "the vassal has stopped", context=server.log)
    server.wait_gone()
    assert "lost connection with the emperor" in server.log()


def test_a_vassal_whose_heart_stops_is_started_again(empire):
    _, address = empire.ini("one.ini", "heartbeat = 1", "no-orphans = true")
    empire.start("--emperor-required-heartbeat", 2)
    empire.serves(address)
    empire.wait(lambda: (empire.vassal("one.ini") or {"last_heartbeat": 0})["last_heartbeat"] > 0, "a heartbeat")
    stopped = empire.running("one.ini")
    os.kill(stopped, signal.SIGSTOP)
    empire.server.logged(rf"one.ini \(pid {stopped}\) has sent no heartbeat in time: killed")
    empire.serves(address)


def test_an_emperor_beside_an_application(empire, stats_at):
    own = tcp()
    _, address = empire.ini("one.ini", "env = NAME=vassal")
    app = f"{empire.place}/app.py"
    server = empire.start("--http-socket", own, "--wsgi-file", app, "--env", "NAME=own", "--stats", stats_at)
    empire.serves(address)
    assert (ask(own), ask(address)) == ("own", "vassal")
    assert empire.document()["pid"] != server.pid
    pid, vassal = empire.document()["pid"], empire.running("one.ini")
    os.kill(pid, signal.SIGKILL)
    server.logged(rf"emperor \(pid {pid}\) died")
    # It leaves with its emperor, and may answer until then.
    until(lambda: not processes.alive(vassal), "the vassal has left", context=server.log)
    empire.serves(address)
    before = ask(address, "pid")
    server.send(signal.SIGHUP)
    empire.wait(lambda: ask(address, "pid") != before, "the vassals reload with the server")
    server.stop()
    assert not listening(address)


def test_an_emperor_may_be_a_vassal(empire):
    _, address = empire.ini("one.ini", "env = NAME=inner")
    outer = empire.place / "outer"
    outer.mkdir()
    (outer / "emperor.ini").write_text(f"[uwsgi]\nemperor = {empire.directory}\nemperor-freq = 1\n")
    empire.start(emperor=outer / "emperor.ini")
    empire.serves(address)
    assert ask(address) == "inner"
    empire.wait(lambda: empire.document()["vassals"][0]["loyal"] == 1, "the inner emperor is loyal")
    inner = empire.document()["vassals"][0]["pid"]
    empire.rewrite(outer / "emperor.ini", f"[uwsgi]\nemperor = {empire.directory}\nvassal-set = env=GIVEN=later\n")
    # A vassal that is started before that keeps the options of before.
    empire.server.logged("emperor: reloading every vassal")
    _, later = empire.ini("two.ini")
    empire.serves(later)
    empire.wait(lambda: ask(later, "GIVEN") == "later", "the inner emperor has read its file again")
    assert empire.document()["vassals"][0]["pid"] == inner


def test_what_the_emperor_says_is_what_uwsgi_says_and_rtop_shows_it(empire, rtop):
    empire.ini("one.ini")
    empire.write("bad.ini", "[uwsgi]\nmodule = missing\n")
    empire.start()
    empire.wait(lambda: empire.blacklist() and empire.vassal("one.ini")["loyal"], "both are known")
    fixture = json.loads((APPS.parent.parent / "shared/tests/fixtures/uwsgi-emperor.json").read_text())
    document = empire.document()
    assert set(fixture) <= set(document)
    for key in ("vassals", "blacklist"):
        assert set(document[key][0]) == set(fixture[key][0]), key
    shown = subprocess.run([rtop, "--count", "1", empire.stats], capture_output=True, text=True, check=True, timeout=60).stdout
    assert "one.ini" in shown and "bad.ini" in shown, shown


def test_the_socket_of_the_emperor_has_its_mode(empire):
    server = empire.serve(
        *("--emperor", empire.directory, "--stats", empire.place / "stats.sock", "--chmod-socket=660"),
        cwd=empire.place,
    )
    # It gets it after it is made.
    until(lambda: (empire.place / "stats.sock").stat().st_mode & 0o777 == 0o660, "the socket's mode")
    assert stats.read(str(empire.place / "stats.sock"))["emperor"] == [str(empire.directory)]
    server.stop()


@pytest.mark.parametrize("options, limit", [([], 512), (["--max-fd", 300], 300)])
def test_vassals_have_the_limit_of_descriptors_that_the_emperor_was_given(empire, options, limit):
    wrapper = empire.place / "wrapper"
    wrapper.write_text(f"#!/bin/sh\nulimit -Sn > {empire.place}/limit.new\nmv {empire.place}/limit.new {empire.place}/limit\n")
    wrapper.chmod(0o755)
    empire.ini("one.ini")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        empire.start("--emperor-wrapper", wrapper, *options)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    there = empire.place / "limit"
    # The file is there before the wrapper has written to it.
    assert until(lambda: there.exists() and there.read_text(), "a vassal is started", context=empire.log) == f"{limit}\n"


def test_a_second_order_to_stop_waits_for_no_hook(empire):
    _, address = empire.ini("one.ini")
    hook = empire.place / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {empire.place}/runs\nexec sleep 1000\n")
    hook.chmod(0o755)
    empire.start("--vassals-stop-hook", hook)
    empire.serves(address)
    empire.server.send(signal.SIGTERM)
    until((empire.place / "runs").exists, "the hook runs", context=empire.log)
    empire.server.send(signal.SIGTERM)
    empire.server.process.wait(DEADLINE)
    until(lambda: not empire.server.processes(), "the hook is gone", context=empire.log)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give vassals the rights of others")
class TestTyrant:
    @pytest.fixture
    def common(self, program_for_all):
        place = other_user.place()
        servers = Servers(program_for_all, place)
        empire = Empire(servers, place)
        yield empire
        servers.stop_all()
        shutil.rmtree(place)

    def test_a_vassal_runs_as_the_owner_of_its_file_and_one_of_root_is_refused(self, common):
        user = other_user.www_data()
        path, address = common.ini("one.ini")
        os.chown(path, user.pw_uid, user.pw_gid)
        _, roots = common.ini("root.ini")
        common.start("--emperor-tyrant")
        common.serves(address)
        assert ask(address, "user") == f"{user.pw_uid} {user.pw_gid} []"
        common.server.logged("root.ini: emperor-tyrant: it belongs to root")
        assert not listening(roots)
        # Who is given the file is who the vassal is from now on.
        os.chown(path, user.pw_uid + 1, user.pw_gid)
        common.server.logged(r"one.ini belongs to user \d+.* now: stopping")
        common.wait(lambda: try_ask(address, "user").startswith(f"{user.pw_uid + 1} "), "another user")

    def test_without_it_vassals_run_as_the_emperor_does(self, common):
        user = other_user.www_data()
        _, address = common.ini("one.ini")
        common.start("--uid", "www-data", "--gid", "www-data", "--pidfile", common.place / "pid")
        common.serves(address)
        assert ask(address, "user").startswith(f"{user.pw_uid} {user.pw_gid} ")
        assert common.document()["uid"] == user.pw_uid

    def test_an_emperor_that_is_not_root_may_keep_the_rights_to_give_others_theirs(self, common):
        user = other_user.www_data()
        path, address = common.ini("one.ini")
        os.chown(path, user.pw_uid + 1, user.pw_gid + 1)
        common.start("--emperor-tyrant", "--uid", user.pw_uid, "--gid", user.pw_gid, "--cap", "setgid,setuid")
        common.serves(address)
        assert ask(address, "user") == f"{user.pw_uid + 1} {user.pw_gid + 1} []"
        assert common.document()["uid"] == user.pw_uid
        emperor, vassal = (status(pid) for pid in (common.server.pid, common.vassal("one.ini")["pid"]))
        assert int(emperor["CapEff"], 16) == 1 << 6 | 1 << 7
        assert [int(vassal[kind], 16) for kind in ("CapEff", "CapPrm", "CapAmb")] == [0, 0, 0]

    def test_root_binds_no_socket_for_a_user_where_that_user_could_not(self, common):
        user = other_user.www_data()
        theirs = common.place / "theirs"
        theirs.mkdir()
        os.chown(theirs, user.pw_uid, user.pw_gid)
        for name, path in [("good", theirs / "good.sock"), ("bad", common.place / "bad.sock")]:
            text = f"[uwsgi]\nhttp-socket = {path}\nwsgi-file = {common.place}/app.py\n"
            for file in (common.write(f"{name}.ini", text), common.write(f"{name}.ini.at", f"{path}\n")):
                os.chown(file, user.pw_uid, user.pw_gid)
        common.start("--emperor-tyrant", "--emperor-on-demand-extension", ".at")
        common.server.logged("bad.ini: .*root binds no socket there for another user")
        # The files are looked at in the order of their names.
        until(lambda: listening(f"{theirs}/good.sock"), "the socket is bound", context=common.log)
        assert ask(f"{theirs}/good.sock", "user").startswith(f"{user.pw_uid} ")
        assert not (common.place / "bad.sock").exists()

    def test_no_user_holds_the_emperor_up_with_what_is_no_file(self, common):
        user = other_user.www_data()
        _, address = common.ini("two.ini")
        for path in common.directory.iterdir():
            os.chown(path, user.pw_uid, user.pw_gid)
        os.chown(common.write("one.ini", "[uwsgi]\n"), user.pw_uid, user.pw_gid)
        os.mkfifo(common.directory / "one.ini.at")
        os.chown(common.directory / "one.ini.at", user.pw_uid, user.pw_gid)
        common.start("--emperor-tyrant", "--emperor-on-demand-extension", ".at")
        common.serves(address)
        common.server.logged("one.ini.at' is no plain file")

    def test_a_file_that_another_user_has_put_in_its_place_is_not_read(self, common, program_for_all):
        user = other_user.www_data()
        path, _ = common.ini("one.ini")
        os.chown(path, user.pw_uid + 1, user.pw_gid)
        done = subprocess.run(
            [program_for_all.path, "--check", path],
            env={**os.environ, "RWSGI_OWNED_ONLY": "1"},
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=[],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1 and f"it belongs to user {user.pw_uid + 1} by now" in done.stdout, done


@pytest.fixture
def real_uwsgi(venv_bin) -> str:
    return str(venv_bin / "uwsgi")


def test_a_uwsgi_is_a_vassal_of_this_emperor(empire, real_uwsgi):
    path, address = empire.ini("one.ini", "env = NAME=uwsgi", "die-on-term = true", "need-app = true")
    empire.start("--emperor-wrapper", real_uwsgi)
    empire.serves(address)
    first = ask(address, "pid")
    empire.wait(lambda: empire.vassal("one.ini")["loyal"] and empire.vassal("one.ini")["ready"], "it has reported")
    assert os.readlink(f"/proc/{first}/exe").endswith("uwsgi")
    touch(path)
    empire.wait(lambda: try_ask(address, "pid") not in ("", first), "it has reloaded")
    path.unlink()
    empire.wait(lambda: not listening(address) and empire.vassal("one.ini") is None, "it has stopped")


def test_a_server_is_a_vassal_of_uwsgis_emperor(serve, program, real_uwsgi, tmp_path):
    uwsgi = Servers(type(program)(real_uwsgi), tmp_path)
    empire = Empire(uwsgi, tmp_path)
    try:
        path, address = empire.ini("one.ini", "env = NAME=before", "heartbeat = 1")
        empire.start("--emperor-wrapper", program.path)
        empire.serves(address)
        assert short_name(empire.vassal("one.ini")["pid"]) == "rwsgi master"
        fields = ("loyal", "ready", "accepting", "last_heartbeat")
        empire.wait(lambda: all(empire.vassal("one.ini")[field] for field in fields), "it has reported")
        first = ask(address, "pid")
        empire.rewrite(path, path.read_text().replace("before", "after"))
        empire.wait(lambda: ask(address, "pid") != first and ask(address) == "after", "it has reloaded")
        empire.wait(lambda: all(empire.vassal("one.ini")[field] for field in fields[1:3]), "it has reported again")
        path.unlink()
        empire.wait(lambda: not listening(address) and empire.vassal("one.ini") is None, "it has stopped")
    finally:
        uwsgi.stop_all()


def test_a_server_starts_on_demand_of_uwsgis_emperor(serve, program, real_uwsgi, tmp_path):
    uwsgi = Servers(type(program)(real_uwsgi), tmp_path)
    empire = Empire(uwsgi, tmp_path)
    try:
        path = f"{tmp_path}/one.sock"
        app = f"wsgi-file = {tmp_path}/app.py"
        empire.write("one.ini", f"[uwsgi]\nhttp-socket = {path}\n{app}\nenv = NAME=late\n")
        (empire.directory / "one.ini.at").write_text(f"{path}\n")
        empire.start("--emperor-wrapper", program.path, "--emperor-on-demand-extension", ".at")
        until(lambda: listening(path), "the emperor has bound the socket", context=empire.log)
        assert ask(path) == "late"
    finally:
        uwsgi.stop_all()


@pytest.mark.parametrize("number", ["77", "nonsense", "1"])
def test_a_variable_that_names_no_emperor_is_said(serve, address, number):
    server = serve("--http-socket", address, "--wsgi-file", "foobar.py", env={"UWSGI_EMPEROR_FD": number})
    server.logged(f"UWSGI_EMPEROR_FD: '{number}' is no connection to an emperor")
    assert http.get(address, "/").status == 200
