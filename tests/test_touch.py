"""What the server reacts to: files that are touched, descriptors, exceptions, a time without requests."""

from __future__ import annotations

import os
import signal

import pytest

from rig import http
from rig.addresses import tcp
from rig.each import BOTH, servers, with_pipe
from rig.waiting import until

APP = """
import os

def application(environ, start_response):
    if environ["PATH_INFO"] == "/raise":
        raise {"key": KeyError, "value": ValueError}[environ["QUERY_STRING"]]("no such <thing>")
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]
"""


class Site:
    def __init__(self, directory, *lines):
        self.address, self.home = tcp(), directory
        (directory / "app.py").write_text(APP)
        self.ini = directory / "site.ini"
        self.ini.write_text(
            "\n".join(["[uwsgi]", "master = true", f"http-socket = {self.address}", "wsgi-file = app.py", *lines]) + "\n"
        )

    def worker(self):
        return http.get(self.address, "/").text


@pytest.fixture(params=BOTH)
def each(request, program, venv_bin, tmp_path):
    started = servers(request.param, program, venv_bin, tmp_path)
    yield started
    started.stop_all()


def is_replaced(site, before):
    try:
        return site.worker() != before
    except (OSError, http.Closed):
        # uWSGI closes its sockets for a moment.
        return False


def touch_until(path, condition, what, server):
    """uWSGI sees whole seconds: the file is given a newer time until it is noticed."""
    newer = iter(range(1, 10_000))

    def noticed():
        time = os.stat(path).st_mtime + 5 * next(newer)
        os.utime(path, (time, time))
        return condition()

    until(noticed, what, context=server.log)


@pytest.mark.parametrize("option", ["touch-exec", "hook-touch"])
def test_a_touched_file_runs_a_command(each, tmp_path, option):
    touched, out = tmp_path / "touched", tmp_path / "out"
    touched.touch()
    action = "exec:" if option == "hook-touch" else ""
    site = Site(tmp_path, f"{option} = {touched} {action}echo ran $COLOUR >> {out}", "env = COLOUR=red")
    server = each("--ini", site.ini, cwd=tmp_path, listens=[site.address])
    before = site.worker()
    assert not out.exists()
    touch_until(touched, lambda: out.exists() and out.read_text(), "the command", server)
    assert set(out.read_text().split("\n")) == {"ran red", ""}
    assert site.worker() == before


@pytest.mark.only_rwsgi(why="uWSGI waits for the command")
def test_a_hook_that_takes_its_time_holds_nothing_up(serve, tmp_path):
    touched, go, out = (tmp_path / name for name in ("touched", "go", "out"))
    touched.touch()
    hooks = [f"hook-touch = {touched} exec:while [ ! -e {go} ]; do sleep 0.05; done; echo one >> {out}"]
    hooks += [f"hook-touch = {touched} appendn:{out} two"]
    site = Site(tmp_path, *hooks)
    server = serve("--ini", site.ini, cwd=tmp_path, listens=[site.address])
    # A server that serves has looked at the file.
    before = site.worker()
    touched.write_text("changed")
    server.logged("touch: running 'exec:")
    server.send(signal.SIGHUP)
    until(lambda: site.worker() != before, "the reload", context=server.log)
    assert not out.exists()
    go.touch()
    until(lambda: out.exists() and out.read_text() == "one\ntwo\n", "both hooks, in order", context=server.log)


@pytest.mark.only_rwsgi(why="uWSGI names the old log by the time")
def test_a_touched_file_puts_the_log_aside(serve, tmp_path):
    touched, log, old = (tmp_path / name for name in ("touched", "site.log", "old.log"))
    touched.touch()
    site = Site(tmp_path, f"touch-logrotate = {touched}", f"logto = {log}", f"log-backupname = {old}")
    serve("--ini", site.ini, cwd=tmp_path, listens=[site.address])
    http.get(site.address, "/first")
    until(lambda: "/first" in log.read_text(), "the first request")
    touched.write_text("changed")
    until(old.exists, "the old log", context=log.read_text)
    http.get(site.address, "/second")
    until(lambda: log.exists() and "/second" in log.read_text(), "the second request", context=log.read_text)
    assert "/first" in old.read_text() and "/first" not in log.read_text()


@pytest.mark.parametrize("what", ["file", "directory"])
@pytest.mark.parametrize("option", ["fs-reload", "fs-brutal-reload"])
def test_a_change_in_the_file_system_reloads(each, tmp_path, option, what):
    watched = tmp_path / "watched"
    watched.mkdir()
    (watched / "file").touch()
    site = Site(tmp_path, f"{option} = {watched if what == 'directory' else watched / 'file'}")
    server = each("--ini", site.ini, cwd=tmp_path, listens=[site.address])
    before = site.worker()
    (watched / "file").write_text("changed")
    until(lambda: is_replaced(site, before), "the reload", context=server.log)


@pytest.mark.parametrize("option", ["reload-on-fd", "brutal-reload-on-fd"])
def test_an_inherited_descriptor_reloads(each, tmp_path, option):
    site = Site(tmp_path, f"{option} = 7:4")
    each.program, pipe = with_pipe(each.program, tmp_path, 7)
    server = each("--ini", site.ini, cwd=tmp_path, listens=[site.address])
    before = site.worker()
    pipe.write_bytes(b"now!")
    until(lambda: is_replaced(site, before), "the reload", context=server.log)


@pytest.mark.only_rwsgi(why="uWSGI goes on without it")
def test_a_descriptor_that_is_not_open_is_an_error(serve, tmp_path):
    site = Site(tmp_path, "reload-on-fd = 77")
    server = serve.run("--ini", site.ini, cwd=tmp_path)
    assert server.wait_exit() == 1 and server.lines("reload-on-fd: descriptor 77 is not open")


def test_a_server_that_is_to_exit_on_reload_does(each, tmp_path):
    site = Site(tmp_path, "exit-on-reload = true", f"exec-as-user-atexit = touch {tmp_path}/end")
    server = each("--ini", site.ini, cwd=tmp_path, listens=[site.address])
    site.worker()
    server.send(signal.SIGHUP)
    assert server.wait_exit() == 0
    assert (tmp_path / "end").exists()


def test_a_server_that_is_not_to_exit_on_reload_does_not(each, tmp_path):
    site = Site(tmp_path, "exit-on-reload = false")
    server = each("--ini", site.ini, cwd=tmp_path, listens=[site.address])
    before = site.worker()
    server.send(signal.SIGHUP)
    until(lambda: is_replaced(site, before), "the reload", context=server.log)


def test_an_idle_server_dies_when_it_is_told_to(each, tmp_path):
    # Not before it is asked for something, on a busy machine either.
    site = Site(tmp_path, "idle = 5", "die-on-idle = true")
    server = each("--ini", site.ini, cwd=tmp_path, listens=[site.address])
    site.worker()
    assert server.wait_exit() == 0


def raise_once(site, kind):
    """uWSGI ends the worker before it has answered."""
    try:
        http.get(site.address, f"/raise?{kind}")
    except (OSError, http.Closed):
        pass


def test_a_worker_is_replaced_when_the_application_raises(each, tmp_path):
    site = Site(tmp_path, "reload-on-exception = true")
    server = each("--ini", site.ini, cwd=tmp_path, listens=[site.address])
    before = site.worker()
    raise_once(site, "key")
    until(lambda: site.worker() != before, "another worker", context=server.log)


@pytest.mark.only_rwsgi(why="uWSGI compares classes and representations with the text")
@pytest.mark.parametrize(
    "option", ["type = KeyError", "value = 'no such <thing>'", "repr = builtins.KeyError: 'no such <thing>'"]
)
def test_a_worker_is_replaced_for_some_exceptions_only(serve, tmp_path, option):
    site = Site(tmp_path, f"reload-on-exception-{option}")
    server = serve("--ini", site.ini, cwd=tmp_path, listens=[site.address])
    before = site.worker()
    if not option.startswith("value"):
        raise_once(site, "value")
        server.logged("ValueError")
        assert site.worker() == before
    raise_once(site, "key")
    until(lambda: site.worker() != before, "another worker", context=server.log)
    assert len(server.lines("reload-on-exception: the application has raised")) == 1


def test_exceptions_are_shown_to_the_client_only_when_asked(each, tmp_path):
    site = Site(tmp_path, "catch-exceptions = true", "env = NOTHING=here")
    each("--ini", site.ini, cwd=tmp_path, listens=[site.address])
    answer = http.get(site.address, "/raise?key")
    assert answer.status == 500 and answer.header("Content-Type").startswith("text/plain")
    for part in (
        'exceptions catcher for "GET /raise?key"',
        "KeyError: 'no such <thing>'\n\nException class: ",
        "KeyError\n\nException message: ",
        "Exception message: 'no such <thing>'",
        "app.py",
        "PATH_INFO = /raise",
    ):
        assert part in answer.text, (part, answer.text)


def test_exceptions_are_not_shown_by_default(serve, tmp_path):
    site = Site(tmp_path)
    serve("--ini", site.ini, cwd=tmp_path, listens=[site.address])
    try:
        text = http.get(site.address, "/raise?key").text
    except http.Closed:
        text = ""
    assert "KeyError" not in text
