"""A server that root starts, in directories that belong to the user that it becomes, or to anybody: what others put there
does not have root write to, or give away, what is root's."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
from pathlib import Path

import pytest

from rig import http, other_user
from rig.server import Servers
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI follows every link as root")

STRANGER = 23456
PRECIOUS = "precious\n"
LOGS = ["--logto", "--logto2", "--daemonize", "--daemonize2"]
PIDFILES = ["--pidfile", "--safe-pidfile"]


class Ground:
    """A directory of root's (`root`), one of www-data's (`theirs`) and one of everybody's (`common`)."""

    def __init__(self, place: Path, user: pwd.struct_passwd) -> None:
        self.place, self.user = place, user
        self.root, self.theirs, self.common = place / "root", place / "theirs", place / "common"
        for directory in (self.root, self.theirs, self.common):
            directory.mkdir()
            directory.chmod(0o755)
        self.give(self.theirs)
        self.common.chmod(0o1777)
        self.precious = self.root / "precious"
        self.precious.write_text(PRECIOUS)
        self.precious.chmod(0o600)

    def give(self, path: Path, uid: int | None = None) -> Path:
        """Gives a file, or the link itself, to www-data or another user."""
        uid = self.user.pw_uid if uid is None else uid
        os.chown(path, uid, uid, follow_symlinks=False)
        return path

    def link(self, path: Path, to: Path | str, uid: int | None = None) -> Path:
        """A symbolic link of www-data's, or of another user's."""
        path.symlink_to(to)
        return self.give(path, uid)

    def check_untouched(self) -> None:
        """What is root's is as it was."""
        found = self.precious.stat()
        assert (found.st_uid, found.st_gid, self.precious.read_text()) == (0, 0, PRECIOUS)
        assert [entry.name for entry in self.root.iterdir()] == ["precious"]


def deployer() -> pwd.struct_passwd:
    """A user who is neither root nor the one that the server becomes."""
    return pwd.getpwnam("daemon")


def site(ground: Ground) -> Path:
    """A directory of the deployer's, with a release in it."""
    place = ground.place / "site"
    (place / "releases" / "7").mkdir(parents=True)
    for directory in (place, place / "releases", place / "releases" / "7"):
        ground.give(directory, deployer().pw_uid)
    return place


@pytest.fixture
def ground():
    user = other_user.www_data()
    place = other_user.place()
    yield Ground(place, user)
    shutil.rmtree(place)


@pytest.fixture
def serve_for_all(program_for_all, tmp_path):
    servers = Servers(program_for_all, tmp_path)
    yield servers
    servers.stop_all()


@pytest.fixture
def refused(serve, address, ground):
    """Starts a server as root with these options, which must end by itself; returns what it says."""

    def run(*arguments: object, uid: str = "www-data") -> str:
        sockets = () if any(str(a).endswith("socket") for a in arguments) else ("--http-socket", address)
        user = ("--uid", uid, "--gid", uid) if uid else ()
        server = serve.start(*sockets, "--wsgi-file", "worklife.py", *user, *arguments)
        assert server.wait_exit() == 1
        server.wait_gone()
        ground.check_untouched()
        return server.log()

    return run


@pytest.mark.parametrize("option", [*PIDFILES, *LOGS])
def test_a_link_of_the_user_to_a_file_of_root_is_refused(refused, ground, option):
    path = ground.link(ground.theirs / "file", ground.precious)
    said = refused(option, path)
    name = option.removeprefix("--safe-").removeprefix("--")
    assert f"{name}: cannot" in said and f"'{path}'" in said
    assert f"a symbolic link of user {ground.user.pw_uid} (www-data) leads there" in said


@pytest.mark.parametrize("option", [*PIDFILES, *LOGS])
def test_a_directory_of_the_user_that_is_a_link_has_root_make_nothing_elsewhere(refused, ground, option):
    ground.link(ground.theirs / "run", ground.root)
    refused(option, ground.theirs / "run" / "file")


@pytest.mark.parametrize("option", ["--pidfile", "--logto"])
def test_a_link_of_a_stranger_is_refused_by_name(refused, ground, option):
    path = ground.link(ground.common / "file", ground.precious, STRANGER)
    said = refused(option, path)
    assert f"'{path}' is a symbolic link of user {STRANGER} in a directory of user 0 (root) and leads to" in said
    assert "remove it, name another file, or have root own it" in said


def test_without_a_user_to_become_a_link_leads_no_further_than_its_owner_could_go(refused, ground):
    path = ground.link(ground.theirs / "file", ground.precious)
    assert f"a symbolic link of user {ground.user.pw_uid} (www-data) leads there" in refused("--pidfile", path, uid="")


def test_another_name_of_a_link_of_root_is_not_followed(refused, ground):
    (ground.place / "roots").symlink_to(ground.precious)
    os.link(ground.place / "roots", ground.common / "file", follow_symlinks=False)
    assert "is a symbolic link of user 0 (root) in a directory of" in refused("--logto", ground.common / "file")


@pytest.mark.parametrize("option", ["--pidfile", "--logto"])
def test_a_hard_link_to_a_file_of_root_is_refused(refused, ground, option):
    os.link(ground.precious, ground.theirs / "file")
    assert "belongs to user 0 (root) and has 2 names" in refused(option, ground.theirs / "file")


@pytest.mark.parametrize("option", ["--pidfile", "--logto"])
def test_a_file_that_a_stranger_has_put_there_is_refused(refused, ground, option):
    path = ground.common / "file"
    path.write_text("")
    ground.give(path, STRANGER)
    assert f"it belongs to user {STRANGER}: root does not use such a file" in refused(option, path)
    assert path.read_text() == ""


@pytest.mark.parametrize("option", ["--pidfile", "--logto"])
def test_a_named_pipe_does_not_keep_root_waiting(refused, ground, option):
    path = ground.theirs / "file"
    os.mkfifo(path)
    ground.give(path)
    assert "it is a named pipe of user" in refused(option, path)


@pytest.mark.parametrize("option", ["--socket", "--http-socket"])
def test_a_socket_is_neither_made_nor_given_away_where_a_link_of_the_user_leads(refused, ground, option):
    ground.link(ground.theirs / "run", ground.root)
    path = ground.theirs / "run" / "app.sock"
    said = refused(option, path, "--chown-socket", "www-data:www-data", "--chmod-socket=666")
    assert f"cannot listen on '{path}'" in said and "a symbolic link of user" in said


def test_a_stats_socket_is_not_made_where_a_link_of_the_user_leads(refused, ground):
    ground.link(ground.theirs / "run", ground.root)
    assert "stats: cannot listen on" in refused("--stats", ground.theirs / "run" / "stats.sock")


def test_an_old_socket_is_not_removed_where_a_link_of_the_user_leads(refused, ground):
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(ground.place / "old.sock"))
    before = (ground.place / "old.sock").stat().st_mtime_ns
    ground.link(ground.theirs / "run", ground.place)
    refused("--socket", ground.theirs / "run" / "old.sock")
    assert (ground.place / "old.sock").stat().st_mtime_ns == before


def test_a_spooler_directory_is_neither_made_nor_given_away_where_a_link_of_the_user_leads(refused, ground):
    ground.link(ground.theirs / "run", ground.root)
    said = refused("--spooler", ground.theirs / "run" / "jobs")
    assert "spooler: cannot make" in said and "a symbolic link of user" in said


def test_a_master_fifo_of_a_stranger_is_refused(refused, ground):
    path = ground.common / "fifo"
    os.mkfifo(path)
    ground.give(path, STRANGER)
    said = refused("--master-fifo", path)
    assert f"master-fifo: '{path}' belongs to user {STRANGER}, who could stop this server with it" in said


def test_a_master_fifo_is_not_made_where_a_link_of_the_user_leads(refused, ground):
    ground.link(ground.theirs / "run", ground.root)
    refused("--master-fifo", ground.theirs / "run" / "fifo")


def test_a_master_fifo_of_root_is_not_used_where_a_link_of_the_user_leads(refused, ground):
    (ground.place / "other").mkdir()
    os.mkfifo(ground.place / "other" / "fifo", 0o600)
    ground.link(ground.theirs / "run", ground.place / "other")
    assert "a symbolic link of user" in refused("--master-fifo", ground.theirs / "run" / "fifo")


@pytest.mark.parametrize("owner", ["deployer", "root"])
@pytest.mark.parametrize("option", ["--pidfile", "--logto"])
def test_a_link_in_a_directory_of_a_third_user_leads_no_further_than_that_user_could_go(refused, ground, option, owner):
    path = ground.link(site(ground) / "file", ground.precious, 0 if owner == "root" else deployer().pw_uid)
    assert f"a symbolic link of user {deployer().pw_uid} (daemon) leads there" in refused(option, path)


def test_a_link_of_one_user_does_not_lead_through_that_of_another(refused, ground):
    """What neither of the two could do alone."""
    ground.link(ground.theirs / "back", ground.theirs)
    path = ground.link(site(ground) / "current", ground.theirs / "back", deployer().pw_uid) / "log"
    said = refused("--logto", path)
    assert f"'{ground.theirs}/back' is a symbolic link of user {ground.user.pw_uid} (www-data)" in said
    assert f"behind a link of user {deployer().pw_uid} (daemon)" in said


@pytest.mark.parametrize("how", ["opened again", "rotated"])
def test_a_server_that_stays_root_does_not_open_its_log_again_through_a_link(serve, address, ground, how):
    log, fifo = ground.theirs / "log", ground.place / "fifo"
    rotation = ("--log-maxsize", 2000) if how == "rotated" else ()
    server = serve(
        *("--http-socket", address, "--wsgi-file", "worklife.py", "--logto", log, "--master-fifo", fifo, *rotation),
        *("--log-backupname", ground.theirs / "old"),
    )
    # It is made after the sockets.
    until(fifo.is_fifo, "the fifo is there", context=server.log)
    log.rename(ground.theirs / "first")
    ground.link(log, ground.precious)
    if how == "opened again":
        fifo.write_text("l")
    else:
        # The link is what is moved away, and the file is made anew.
        until(lambda: http.get(address, "/").status == 200 and (ground.theirs / "old").is_symlink(), "it is rotated")
        until(lambda: log.exists() and http.get(address, "/").status == 200, "there is a log again")
        assert not log.is_symlink()
    if how == "opened again":
        until(lambda: "going on with the old one" in (ground.theirs / "first").read_text(), "it is refused")
        assert "a symbolic link of user" in (ground.theirs / "first").read_text()
    ground.check_untouched()
    assert server.process.poll() is None


# What ordinary set-ups have, and must go on to have.


@pytest.mark.parametrize("target", ["/dev/stdout", "/dev/stderr", "/proc/self/fd/1", "link", "/dev/null"])
def test_a_log_may_be_a_stream_as_images_for_containers_have_it(serve, address, ground, target):
    if target == "link":
        target = str(ground.root / "app.log")
        os.symlink("/dev/stdout", target)
    server = serve("--http-socket", address, "--wsgi-file", "worklife.py", "--logto", target)
    assert http.get(address, "/").status == 200
    if target != "/dev/null":
        server.logged("GET /")


class Ordinary:
    """A server as www-data, with an application that everybody can read."""

    def __init__(self, serve: Servers, ground: Ground, address: str) -> None:
        self.serve, self.ground, self.address = serve, ground, address
        app = "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'ok']\n"
        (ground.place / "plain.py").write_text(app)

    def __call__(self, *arguments: object):
        server = self.serve(
            *("--http-socket", self.address, "--wsgi-file", "plain.py", "--uid", "www-data", "--gid", "www-data"),
            *arguments,
            cwd=self.ground.place,
        )
        assert http.get(self.address, "/").body == b"ok"
        return server


@pytest.fixture
def ordinary(serve_for_all, ground, address):
    return Ordinary(serve_for_all, ground, address)


def test_files_in_the_user_s_directory_are_made_and_given_away_as_ever(ordinary, ground):
    user, theirs = ground.user.pw_uid, ground.theirs
    server = ordinary(
        *("--pidfile", theirs / "one.pid", "--pidfile2", theirs / "two.pid", "--logto", theirs / "log"),
        *("--socket", theirs / "app.sock", "--chown-socket", f"{STRANGER}:{STRANGER}", "--chmod-socket=620"),
        *("--stats", theirs / "stats.sock", "--master-fifo", theirs / "fifo", "--spooler", theirs / "jobs", "--vacuum"),
    )
    for pidfile in ("one.pid", "two.pid"):
        assert int((theirs / pidfile).read_text()) == server.pid
        assert (theirs / pidfile).stat().st_uid == user
    found = (theirs / "app.sock").stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (STRANGER, STRANGER, 0o620)
    assert (theirs / "jobs").stat().st_uid == user
    assert (theirs / "fifo").is_fifo()
    until(lambda: "GET /" in (theirs / "log").read_text(), "the request is logged")
    server.stop()
    assert sorted(entry.name for entry in theirs.iterdir()) == ["jobs", "log"]


@pytest.mark.parametrize("owner", ["root", "user"])
def test_a_log_that_is_there_is_appended_to_whether_root_s_or_the_user_s(ordinary, ground, owner):
    log = ground.theirs / "log"
    log.write_text("before\n")
    if owner == "user":
        ground.give(log)
    ordinary("--logto", log)
    until(lambda: "GET /" in log.read_text(), "the request is logged")
    assert log.read_text().startswith("before\n")


def test_links_of_the_user_lead_where_the_user_may_write(ordinary, ground):
    """As a deployment has it: `current` is a link, and the log's directory another."""
    (ground.theirs / "shared").mkdir()
    ground.give(ground.theirs / "shared")
    ground.link(ground.theirs / "current", "shared")
    current = ground.theirs / "current"
    server = ordinary("--logto", current / "log", "--pidfile", current / "pid", "--stats", current / "stats.sock")
    assert {name.name: name.stat().st_uid for name in (ground.theirs / "shared").iterdir()} == {
        name: ground.user.pw_uid for name in ("log", "pid", "stats.sock")
    }
    assert server.stats_address and int((ground.theirs / "shared" / "pid").read_text()) == server.pid


def test_a_file_of_others_that_the_user_may_write_stays_theirs(ordinary, ground):
    """It may be written through a link of the user's, and that makes it nobody's own."""
    shared = ground.place / "shared"
    shared.write_text("")
    shared.chmod(0o666)
    server = ordinary("--pidfile", ground.link(ground.theirs / "pid", shared))
    assert int(shared.read_text()) == server.pid
    assert (shared.stat().st_uid, shared.stat().st_gid) == (0, 0)


@pytest.mark.parametrize("owner", ["deployer", "root"])
def test_a_link_in_a_directory_of_a_third_user_leads_where_that_user_may_write(ordinary, ground, owner):
    """`current` of a deployment is made by the user who deploys, or by root, and not by the one who serves."""
    uid = deployer().pw_uid
    current = ground.link(site(ground) / "current", "releases/7", 0 if owner == "root" else uid)
    server = ordinary(
        *("--logto", current / "log", "--pidfile", current / "pid", "--stats", current / "stats.sock"),
        *("--socket", current / "app.sock", "--chown-socket", f"{STRANGER}:{STRANGER}", "--chmod-socket=620"),
        *("--spooler", current / "jobs"),
    )
    assert {name.name: name.stat().st_uid for name in (ground.place / "site" / "releases" / "7").iterdir()} == {
        "log": uid, "pid": ground.user.pw_uid, "stats.sock": uid, "app.sock": STRANGER, "jobs": ground.user.pw_uid,
    }
    assert int((current / "pid").read_text()) == server.pid


def test_a_log_of_a_server_that_stays_root_is_rotated_where_a_link_of_a_third_user_leads(serve, address, ground):
    current = ground.link(site(ground) / "current", "releases/7", deployer().pw_uid)
    arguments = ("--log-maxsize", 2000, "--log-backupname", current / "old")
    server = serve("--http-socket", address, "--wsgi-file", "worklife.py", "--logto", current / "log", *arguments)
    until(lambda: http.get(address, "/").status == 200 and (current / "old").exists(), "it is rotated")
    until(lambda: http.get(address, "/").status == 200 and (current / "log").exists(), "there is a log again")
    # Root makes it, and gives it away.
    until(lambda: {(current / name).stat().st_uid for name in ("old", "log")} == {deployer().pw_uid}, "both are the deployer's")
    assert server.process.poll() is None


def test_a_link_of_root_in_a_directory_of_root_is_followed(ordinary, ground):
    (ground.place / "run").symlink_to(ground.root)
    server = ordinary("--pidfile", ground.place / "run" / "pid", "--spooler", ground.place / "run" / "jobs")
    assert int((ground.root / "pid").read_text()) == server.pid
    assert (ground.root / "jobs").stat().st_uid == ground.user.pw_uid


@pytest.mark.parametrize("owner", ["root", "user"])
def test_a_master_fifo_that_is_there_may_be_root_s_or_the_user_s(ordinary, ground, owner):
    path = ground.theirs / "fifo"
    os.mkfifo(path, 0o600)
    if owner == "user":
        ground.give(path)
    server = ordinary("--master-fifo", path)
    path.write_text("q")
    assert server.wait_exit() == 0


def test_an_old_socket_is_replaced_in_the_user_s_directory(ordinary, ground):
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(ground.theirs / "app.sock"))
    ordinary("--http-socket", ground.theirs / "app.sock")
    assert http.get(str(ground.theirs / "app.sock"), "/").body == b"ok"
