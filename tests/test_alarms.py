"""Alarms: what raises one, and what is done then."""

from __future__ import annotations

import socket

import pytest

from rig import http
from rig.addresses import tcp
from rig.each import BOTH, servers, with_pipe
from rig.waiting import until

APP = """
import os, signal, sys, time, uwsgi

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/say":
        print(environ["QUERY_STRING"], file=sys.stderr, flush=True)
    elif path == "/alarm":
        uwsgi.alarm("file", "raised by the application")
    elif path == "/crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif path == "/slow":
        open("begun", "w").close()
        while not os.path.exists("go"):
            time.sleep(0.01)
    start_response("200 OK", [])
    return [b"said"]
"""


class Site:
    def __init__(self, directory, *lines, app=APP):
        self.out, self.address, self.home = directory / "out", tcp(), directory
        (directory / "app.py").write_text(app)
        self.ini = directory / "site.ini"
        text = ["[uwsgi]", "master = true", f"http-socket = {self.address}", "wsgi-file = app.py", "disable-logging = true"]
        # The message has no line end of its own, and two commands may run at once.
        text += [f'alarm = file cmd:echo "$(cat)" >> {self.out}', *lines]
        self.ini.write_text("\n".join(text) + "\n")

    def raised(self, count, server):
        def there():
            lines = self.out.read_text().splitlines() if self.out.exists() else []
            return lines if len(lines) >= count else None

        return until(there, f"{count} alarms", context=server.log)


@pytest.fixture(params=BOTH)
def each(request, program, venv_bin, tmp_path):
    started = servers(request.param, program, venv_bin, tmp_path)
    yield started
    started.stop_all()


@pytest.mark.only_rwsgi(why="the uWSGI of the tests has no regular expressions")
def test_a_line_of_the_log_raises_an_alarm_and_an_exception_to_it_does_not(serve, tmp_path):
    site = Site(tmp_path, "not-alarm-log = file fire_drill", r"alarm-log = file ^fire\w+")
    server = serve("--ini", site.ini, cwd=tmp_path, listens=[site.address])
    for said in ("fire_drill", "no_fire_at_all", "fire_in_the_hall", "fire_again"):
        http.get(site.address, f"/say?{said}")
    assert sorted(site.raised(2, server)) == ["fire_again", "fire_in_the_hall"]


@pytest.mark.only_rwsgi(why="the uWSGI of the tests has no regular expressions")
@pytest.mark.parametrize("logto", [True, False])
def test_a_line_of_the_server_itself_raises_an_alarm(serve, tmp_path, logto):
    site = Site(tmp_path, "alarm-log = file worker 1 .* died", *([f"logto = {tmp_path}/log"] if logto else []))
    server = serve("--ini", site.ini, cwd=tmp_path, listens=[site.address])
    with pytest.raises(http.Closed):
        http.get(site.address, "/crash")
    (line,) = site.raised(1, server)
    assert "worker 1" in line and "died" in line


@pytest.mark.only_rwsgi(why="the uWSGI of the tests has no regular expressions")
def test_an_alarm_in_the_log_does_not_raise_itself(serve, tmp_path):
    site = Site(tmp_path, "alarm = log log:HEARD", "alarm-log = log,file fire", "alarm-freq = 0")
    server = serve("--ini", site.ini, cwd=tmp_path, listens=[site.address])
    http.get(site.address, "/say?fire")
    site.raised(1, server)
    http.get(site.address, "/say?fire")
    assert site.raised(2, server) == ["fire", "fire"]
    server.logged("ALARM: HEARD fire", 2)
    assert len(server.lines("ALARM:")) == 2


def test_the_application_raises_an_alarm_and_the_same_message_again_does_not(each, tmp_path):
    site = Site(tmp_path, "alarm-freq = 1000")
    server = each("--ini", site.ini, cwd=tmp_path, listens=[site.address])
    for _ in range(3):
        http.get(site.address, "/alarm")
    assert site.raised(1, server) == ["raised by the application"]


def test_a_crash_raises_an_alarm(each, tmp_path):
    site = Site(tmp_path, "alarm-segfault = file")
    server = each("--ini", site.ini, cwd=tmp_path, listens=[site.address])
    with pytest.raises(http.Closed):
        http.get(site.address, "/crash")
    said = "".join(site.raised(1, server))
    assert "segmentation fault" in said or "backtrace" in said


def test_a_full_backlog_raises_an_alarm(each, tmp_path):
    site = Site(tmp_path, "alarm-backlog = file", "listen = 2", "enable-threads = true")
    server = each("--ini", site.ini, cwd=tmp_path, listens=[site.address])
    waiting = []
    try:
        host, _, port = site.address.partition(":")
        for _ in range(6):
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex((host, int(port)))
            if len(waiting) == 1:
                waiting[0].setblocking(True)
                waiting[0].sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
                until((tmp_path / "begun").exists, "the only worker is busy", context=server.log)
        assert "listen queue of socket" in site.raised(1, server)[0]
    finally:
        (tmp_path / "go").touch()
        for connection in waiting:
            connection.close()


def test_an_inherited_descriptor_raises_an_alarm(each, tmp_path):
    site = Site(tmp_path, "alarm-fd = file 7 a byte has come", "alarm-freq = 0")
    each.program, pipe = with_pipe(each.program, tmp_path, 7)
    server = each("--ini", site.ini, cwd=tmp_path, listens=[site.address])
    http.get(site.address, "/")
    assert not site.out.exists()
    pipe.write_bytes(b"xy")
    assert set(site.raised(2, server)) == {"a byte has come"}


def test_a_hook_raises_an_alarm(each, tmp_path):
    site = Site(tmp_path, "hook-accepting1 = alarm:file the server serves")
    server = each("--ini", site.ini, cwd=tmp_path, listens=[site.address])
    assert site.raised(1, server) == ["the server serves"]


HANDLES = """
import uwsgi
uwsgi.register_signal(17, "", lambda number: open("handled", "a").write("signal\\n"))
uwsgi.mule_msg_hook = lambda message: open("handled", "ab").write(message + b"\\n")

def application(environ, start_response):
    uwsgi.alarm(environ["QUERY_STRING"], "to whom it concerns")
    start_response("200 OK", [])
    return [b""]
"""


@pytest.mark.parametrize("kind, comes", [("signal", "signal"), ("mule", "to whom it concerns")])
def test_an_alarm_is_a_signal_or_a_message(each, tmp_path, kind, comes):
    site = Site(tmp_path, "alarm = signal signal:17", "alarm = mule mule:1", "mule = true", app=HANDLES)
    server = each("--ini", site.ini, cwd=tmp_path, listens=[site.address])
    http.get(site.address, f"/?{kind}")
    handled = tmp_path / "handled"
    until(lambda: handled.exists() and comes in handled.read_text(), "the alarm", context=server.log)


@pytest.mark.parametrize("line", ["alarm-segfault = nobody", "alarm = x", "alarm-log = file (?=x)", "alarm-log = nobody x"])
@pytest.mark.only_rwsgi(why="uWSGI lets some of these pass and raises nothing")
def test_an_alarm_that_cannot_be_raised_is_an_error(serve, tmp_path, line):
    site = Site(tmp_path, line)
    assert serve.run("--ini", site.ini, cwd=tmp_path).wait_exit() == 1


@pytest.mark.only_rwsgi(why="uWSGI does not start without the plugin")
def test_an_alarm_plugin_that_is_not_here_is_a_line_of_the_log(serve, tmp_path):
    site = Site(tmp_path, "alarm = far sentry:dsn=x", "hook-accepting1 = alarm:far hello")
    server = serve("--ini", site.ini, cwd=tmp_path, listens=[site.address])
    server.logged("there is no alarm plugin 'sentry' here")
    server.logged("ALARM: far hello")
