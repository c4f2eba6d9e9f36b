"""Whom a server that root starts becomes: every process of it, to its last group."""

from __future__ import annotations

import os
import pwd
import shutil

import pytest

from rig import http, other_user, processes
from rig.server import Server, Servers
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI keeps root's groups where no gid is given")

# A number that no user of this system has.
NUMBER = "12345"

APP = """
import uwsgi

uwsgi.spooler = lambda job: uwsgi.SPOOL_OK
uwsgi.mule_msg_hook = lambda message: None


def application(environ, start_response):
    start_response("200 OK", [])
    return [b"ok"]
"""


@pytest.fixture
def place():
    directory = other_user.place()
    (directory / "everywhere.py").write_text(APP)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def start(program_for_all, tmp_path, address, stats_at, place):
    """Starts a server with a process of every kind; root's additional groups are there to be lost."""
    servers = Servers(program_for_all, tmp_path)

    def run(*options: object) -> Server:
        before = os.getgroups()
        # Those of `root` in a container as a rule: adm, disk, and whatever else.
        os.setgroups([0, 4, 6])
        try:
            server = servers(
                *("--http", address, "--wsgi-file", "everywhere.py", "--stats", stats_at, "--mule", "--workers", 2),
                *("--spooler", place / "jobs", *options),
                cwd=place,
            )
        finally:
            os.setgroups(before)
        server.wait_workers(2)
        assert http.get(address, "/").body == b"ok"
        until(lambda: len(server.processes()) >= 7, "every process is there", context=server.log)
        return server

    yield run
    servers.stop_all()


def status(server: Server) -> dict[str, dict[str, list[str]]]:
    """What /proc says of every process of a server, when all run: by name."""

    def look() -> dict[str, dict[str, list[str]]] | None:
        found = {}
        for process in server.processes():
            try:
                with open(f"/proc/{process.pid}/status") as file:
                    fields = dict(line.rstrip("\n").split(":", 1) for line in file)
            except (FileNotFoundError, ProcessLookupError):
                continue  # a process between two forks
            found[fields["Name"].strip()] = {name: fields[name].split() for name in ("Uid", "Gid", "Groups", "NoNewPrivs", "CapEff")}
        return found if {"rwsgi http", "rwsgi w1", "rwsgi w2", "rwsgi spool1", "rwsgi mule1"} <= set(found) else None

    found = until(look, "all processes run", context=server.log)
    assert {"rwsgi master", "rwsgi forksrv"} <= set(found)
    return found


def of_all(server: Server, field: str) -> list[list[str]]:
    """The different values of a field among all processes."""
    values: list[list[str]] = []
    for fields in status(server).values():
        if fields[field] not in values:
            values.append(fields[field])
    return values


def test_a_number_without_an_entry_leaves_every_group_of_root(start):
    server = start("--uid", NUMBER, "--gid", "54321")
    assert of_all(server, "Uid") == [[NUMBER] * 4]
    assert of_all(server, "Gid") == [["54321"] * 4]
    assert of_all(server, "Groups") == [["54321"]]
    assert of_all(server, "NoNewPrivs") == [["0"]], "programs such as sendmail go on to work"


def test_a_number_without_an_entry_and_without_a_group_is_refused_with_the_line_to_write(program, serve, address, place):
    other_user.www_data()
    server = serve.run("--http-socket", address, "--wsgi-file", "everywhere.py", "--uid", NUMBER, cwd=place)
    assert server.wait_exit() == 1
    assert f"uid: user {NUMBER} has no entry in /etc/passwd" in server.log()
    assert f"add 'gid = {NUMBER}'" in server.log()


def test_a_user_by_name_gets_its_own_group_and_groups_are_added_by_name_and_by_number(start):
    user = pwd.getpwnam("www-data")
    server = start("--uid", "www-data", "--add-gid", "4321", "--add-gid", "adm")
    assert of_all(server, "Gid") == [[str(user.pw_gid)] * 4]
    expected = {str(user.pw_gid), "4321", "4"} | {str(group) for group in os.getgrouplist("www-data", user.pw_gid)}
    assert [set(groups) for groups in of_all(server, "Groups")] == [expected]


def test_a_group_alone_leaves_the_other_groups_of_root_too(start):
    server = start("--gid", "54321", "--add-gid", "4321")
    assert of_all(server, "Uid") == [["0"] * 4]
    assert [set(groups) for groups in of_all(server, "Groups")] == [{"54321", "4321"}]


def test_no_new_privs_holds_for_every_process_after_a_reload_and_a_crash_too(start, address):
    server = start("--uid", "www-data", "--no-new-privs")
    assert of_all(server, "NoNewPrivs") == [["1"]]
    [router] = [process for process in server.processes() if process.name == "rwsgi http"]
    processes.kill(router.pid)
    until(
        lambda: [p.pid for p in server.processes() if p.name == "rwsgi http"] not in ([], [router.pid]),
        "another router is there",
        context=server.log,
    )
    until(lambda: http.get(address, "/").body == b"ok", "it serves", context=server.log)
    assert of_all(server, "NoNewPrivs") == [["1"]]


def test_no_new_privs_needs_no_root(serve, address, stats_at):
    server = serve("--http-socket", address, "--wsgi-file", "worklife.py", "--stats", stats_at, "--no-new-privs")
    server.wait_workers(1)
    for process in server.processes():
        try:
            with open(f"/proc/{process.pid}/status") as file:
                assert "NoNewPrivs:\t1\n" in file.read()
        except (FileNotFoundError, ProcessLookupError):
            assert not processes.alive(process.pid)


def test_a_group_that_there_is_not_is_an_error(serve, address):
    server = serve.run("--http-socket", address, "--wsgi-file", "worklife.py", "--add-gid", "no-such-group")
    assert server.wait_exit() == 1
    assert "--add-gid: expected the name or number of a group on this machine, got 'no-such-group'" in server.log()


def test_a_user_keeps_the_capabilities_that_are_named_and_no_other(start):
    server = start("--uid", NUMBER, "--gid", "54321", "--cap", "setgid,setuid")
    assert of_all(server, "Uid") == [[NUMBER] * 4]
    assert of_all(server, "CapEff") == [["00000000000000c0"]]


def test_root_gives_up_the_capabilities_that_are_not_named(start):
    server = start("--cap", "net_bind_service")
    assert of_all(server, "Uid") == [["0"] * 4]
    # And those that the server needs: setgid, setuid, setpcap, sys_chroot. What is executed has no more.
    assert of_all(server, "CapEff") == [["00000000000405c0"]]


def test_a_user_without_named_capabilities_has_none(start):
    assert of_all(start("--uid", NUMBER, "--gid", "54321"), "CapEff") == [["0000000000000000"]]


def test_the_groups_that_the_user_is_in_can_be_left_out(start):
    user = pwd.getpwnam("www-data")
    server = start("--immediate-uid", "www-data", "--immediate-gid", "www-data", "--add-gid", "4321")
    assert of_all(server, "Uid") == [[str(user.pw_uid)] * 4]
    assert [set(groups) for groups in of_all(server, "Groups")] == [{str(user.pw_gid), "4321"}]
