"""The `uwsgi` module and its decorators: one application, asked the same under rwsgi and under a real uWSGI."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from rig import http
from rig.addresses import tcp
from rig.each import servers
from rig.server import Servers
from rig.waiting import until

DOCS = Path(__file__).resolve().parent.parent / "docs"


class Asked:
    """A running server of `apps/ask_uwsgi.py`."""

    def __init__(self, servers: Servers, directory: Path) -> None:
        self.address, self.stats_at = tcp(), tcp()
        self.record_path, self.watched = directory / "record", directory / "watched"
        self.record_path.touch()
        self.watched.touch()
        self.is_uwsgi = servers.program.is_uwsgi
        self.server = servers(
            *("--http-socket", self.address, "--stats", self.stats_at, "--wsgi-file", "ask_uwsgi.py", "--master"),
            *("--processes", 2, "--mules", 2, "--farm", "f:1,2", "--locks", 2, "--enable-metrics"),
            *("--cache2", "name=small,items=10,blocksize=16,keysize=8", "--cache2", "name=other,items=5"),
            *("--metric", "foo", "--metric", "name=bar,type=gauge,initial_value=5"),
            env={"RECORD": str(self.record_path), "WATCHED": str(self.watched)},
        )

    def __call__(self, code: str) -> str:
        """What `answer` is after `code` has run in a worker; of an exception, its type and text."""
        return http.request(self.address, "POST", "/", body=code.encode()).text

    def value(self, expression: str) -> object:
        """What an expression gives in a worker."""
        text = self(f"answer = {expression}")
        try:
            return eval(text)
        except Exception:
            raise AssertionError(f"{expression}: {text}") from None

    def record(self) -> Counter[str]:
        """What the application has written down, with how often."""
        return Counter(self.record_path.read_text().splitlines())

    def recorded(self, line: str, count: int = 1) -> None:
        """Waits for a line."""
        until(lambda: self.record()[line] >= count, f"{line!r} {count} times", context=lambda: f"{self.record()}\n{self.server.log()}")


@pytest.fixture(scope="module", params=["rwsgi", "uwsgi"])
def ask(request, program, venv_bin, tmp_path_factory):
    """The application under each of the two servers in turn."""
    directory = tmp_path_factory.mktemp(request.param)
    started = servers(request.param, program, venv_bin, directory)
    yield Asked(started, directory)
    started.stop_all()


@pytest.fixture(scope="module")
def ask_rwsgi(program, tmp_path_factory):
    """The application under rwsgi alone."""
    directory = tmp_path_factory.mktemp("alone")
    servers = Servers(program, directory)
    yield Asked(servers, directory)
    servers.stop_all()


SAME = {
    # What is asked, and what both servers answer. Each line is asked once, in this order.
    "constants": [
        ("uwsgi.numproc, uwsgi.cores, uwsgi.has_threads, uwsgi.applications, uwsgi.is_a_reload, uwsgi.loop, uwsgi.unbit",
         (2, 1, 1, None, False, None, None)),
        ("uwsgi.version_info[:3] >= (2, 0, 28), uwsgi.version[:4], isinstance(uwsgi.hostname, bytes)", (True, b"2.0.", True)),
        ("uwsgi.opt['processes'], uwsgi.opt['cache2'], uwsgi.opt['master']", (b"2", b"name=other,items=5", True)),
        ("uwsgi.magic_table[b'v'].endswith(b'/apps'), uwsgi.started_on > 10**9, uwsgi.buffer_size >= 4096", (True, True, True)),
    ],
    "process": [
        ("uwsgi.worker_id() in (1, 2), uwsgi.mule_id(), uwsgi.i_am_the_spooler(), uwsgi.log('x')", (True, 0, None, True)),
        ("uwsgi.masterpid() == os.getppid(), [part > 0 for part in uwsgi.mem()], uwsgi.ready()", (True, [True, True], True)),
        ("uwsgi.setprocname('x'), uwsgi.logsize(), uwsgi.micros() > 10**15", (None, 0, True)),
        ("len(uwsgi.workers()), uwsgi.workers()[1]['id'], uwsgi.workers()[0]['apps'][0]['mountpoint']", (2, 2, b"")),
        ("sorted(uwsgi.workers()[0])", sorted(
            "id pid requests delta_requests signals exceptions status rss vsz running_time last_spawn respawn_count tx "
            "avg_rt apps".split())),
        ("uwsgi.workers()[0]['pid'] != uwsgi.workers()[1]['pid'], uwsgi.total_requests() > 5", (True, True)),
    ],
    "request": [
        ("uwsgi.request_id() < uwsgi.total_requests() + 1, uwsgi.ready_fd(), uwsgi.connection_fd() > 2", (True, -1, True)),
        ("uwsgi.is_connected(uwsgi.connection_fd()), uwsgi.is_connected(9999)", (True, False)),
        ("uwsgi.get_logvar('x'), uwsgi.set_logvar('x', 'y'), uwsgi.get_logvar('x')", (None, None, b"y")),
        ("uwsgi.get_logvar('x'), uwsgi.log_this_request()", (None, None)),
        ("uwsgi.set_user_harakiri(100), uwsgi.set_user_harakiri(0), watched(3)", (None, None, 4)),
    ],
    "cache": [
        ("uwsgi.cache_set('a', 'b'), uwsgi.cache_set('a', 'c'), uwsgi.cache_get('a'), uwsgi.cache_get('z')",
         (True, None, b"b", None)),
        ("uwsgi.cache_update('a', b'c', 0, 'small'), uwsgi.cache_get(b'a', 'small'), uwsgi.cache_get('a', 'other')",
         (True, b"c", None)),
        ("uwsgi.cache_set('b', 'x' * 17), uwsgi.cache_set('longkey99', 'x'), uwsgi.cache_set('b', '')", (None, None, None)),
        ("uwsgi.cache_exists('a'), uwsgi.cache_exists('b'), uwsgi.cache_get('a', 'nosuch')", (True, None, None)),
        ("uwsgi.cache_inc('n'), uwsgi.cache_inc('n', 41), uwsgi.cache_num('n')", (True, True, 42)),
        ("uwsgi.cache_dec('n', 2), uwsgi.cache_mul('n', 3), uwsgi.cache_div('n', 4), uwsgi.cache_num('n')",
         (True, True, True, 30)),
        ("uwsgi.cache_div('n', 0), uwsgi.cache_num('n'), uwsgi.cache_num('a'), uwsgi.cache_num('z')", (True, 0, 0, 0)),
        ("sorted(uwsgi.cache_keys()), uwsgi.cache_keys('other')", ([b"a", b"n"], [])),
        ("uwsgi.cache_del('a'), uwsgi.cache_del('a'), uwsgi.cache_clear(), uwsgi.cache_keys()", (True, None, True, [])),
        ("uwsgi.cache_clear('nosuch')", None),
    ],
    "locks": [
        ("uwsgi.lock(), uwsgi.is_locked(), uwsgi.unlock(), uwsgi.is_locked()", (None, True, None, False)),
        ("uwsgi.lock(2), uwsgi.is_locked(2), uwsgi.is_locked(1), uwsgi.unlock(2)", (None, True, False, None)),
        ("uwsgi.unlock(1), locked(), uwsgi.is_locked()", (None, True, False)),
    ],
    "metrics": [
        ("uwsgi.metric_get('foo'), uwsgi.metric_inc('foo'), uwsgi.metric_inc('foo', 5), uwsgi.metric_get('foo')",
         (0, True, True, 6)),
        ("uwsgi.metric_get('bar'), uwsgi.metric_set('bar', 7), uwsgi.metric_dec('bar'), uwsgi.metric_mul('bar', 6)",
         (5, True, True, True)),
        ("uwsgi.metric_div('bar', 5), uwsgi.metric_get('bar'), uwsgi.metric_div('bar', 0)", (True, 7, None)),
        ("uwsgi.metric_set_max('bar', 100), uwsgi.metric_set_min('bar', 50), uwsgi.metric_set_min('bar', 1)",
         (True, True, True)),
        ("uwsgi.metric_get('bar'), uwsgi.metric_inc('nosuch'), uwsgi.metric_get('nosuch')", (50, None, 0)),
    ],
    "rpc": [
        ("uwsgi.rpc_list(), uwsgi.call(b'double', b'ab'), uwsgi.rpc(None, b'double', b'x')", ((b"double",), b"abab", b"xx")),
        ("uwsgi.call(b'nosuch'), uwsgi.register_rpc('x', lambda: b'', 0), uwsgi.call(b'x')", (None, True, None)),
    ],
    "signals": [
        ("uwsgi.signal_registered(44), uwsgi.signal_registered(200), uwsgi.signal_received()", (True, None, 0)),
        ("uwsgi.register_signal(50, '', print), uwsgi.register_signal(50, '', print)", (None, None)),
        ("uwsgi.add_timer(50, 1000), uwsgi.add_rb_timer(50, 1000), uwsgi.add_rb_timer(50, 1000, 2)", (None, None, None)),
        ("uwsgi.add_cron(50, 1, 1, 1, 1, 1), uwsgi.add_file_monitor(50, '/proc/self')", (True, None)),
    ],
    "mules": [
        ("uwsgi.mule_msg(b'hello'), uwsgi.mule_msg('hello', 1), uwsgi.farm_msg('f', 'x'), uwsgi.farm_msg('nosuch', 'x')",
         (True, True, None, None)),
        ("uwsgi.mule_msg('x', b'f'), uwsgi.in_farm('f'), uwsgi.in_farm()", (True, None, None)),
    ],
}


@pytest.mark.parametrize("concern", SAME)
def test_functions_answer_as_uwsgis(ask, concern):
    for expression, expected in SAME[concern]:
        assert ask.value(expression) == expected, expression


@pytest.mark.parametrize(
    "expression, raised",
    [
        ("uwsgi.lock(3)", "ValueError: Invalid lock number"),
        ("uwsgi.is_locked(-1)", "ValueError: Invalid lock number"),
        ("uwsgi.cache_keys('nosuch')", "ValueError: no local uWSGI cache available"),
        ("uwsgi.cache_set(5, 'x')", "TypeError: "),
        ("uwsgi.set_logvar('x', 5)", "TypeError: "),
        ("uwsgi.mule_msg('x', b'nosuch')", "ValueError: unknown farm"),
        ("uwsgi.mule_msg('x', 2.5)", "ValueError: invalid mule"),
        ("uwsgi.mule_get_msg()", "ValueError: you can receive mule messages only in a mule"),
        ("uwsgi.farm_get_msg()", "ValueError: you can receive farm messages only in a mule"),
    ],
)
def test_mistakes_raise_as_uwsgis_do(ask, expression, raised):
    assert ask(f"answer = {expression}").startswith(raised)


def test_hooks_run_in_every_worker_and_mule(ask):
    for where in ("worker1", "worker2", "mule1", "mule2"):
        ask.recorded(f"postfork {where}")
        ask.recorded(f"thread {where} True")
    ask.recorded("postfork-2 worker2")
    assert not any(line.startswith("postfork-2") and line != "postfork-2 worker2" for line in ask.record())


def test_timers_crons_and_files_call_their_functions_in_their_processes(ask):
    # The lowest free signal is the first timer's.
    ask.recorded("timer 0", 2)
    ask.recorded("timer-workers 40 worker1")
    ask.recorded("timer-workers 40 worker2")
    ask.recorded("rbtimer 41 worker2")
    ask.recorded("cron 42")
    ask.watched.write_text("changed")
    ask.recorded("filemon 43")
    assert "rbtimer 41 worker1" not in ask.record()


def test_signals_reach_their_targets_and_functions_their_mules(ask):
    assert ask.value("uwsgi.signal(44), uwsgi.signal(46)") == (None, None)
    ask.recorded("signal 44 mule1")
    ask.server.logged("broken on purpose")
    assert ask.value("worked(1, 2, a=3), worked_in_second('x')") == (None, None)
    until(
        lambda: any(re.match(r"mulefunc mule\d \(1, 2\) \[\('a', 3\)\]", line) for line in ask.record()),
        "the function ran in a mule",
    )
    ask.recorded("mulefunc-2 mule2 x")


def test_a_cached_item_expires(ask_rwsgi):
    # By whole seconds: one of a single second may expire at once.
    assert ask_rwsgi.value("uwsgi.cache_set('e', 'x', 2), uwsgi.cache_get('e')") == (True, b"x")
    until(lambda: ask_rwsgi.value("uwsgi.cache_get('e')") is None, "it has expired")


def test_a_slow_handler_delays_no_request_and_is_seen(ask_rwsgi):
    go = ask_rwsgi.watched.with_name("go")
    go.unlink(missing_ok=True)
    assert ask_rwsgi.value("uwsgi.signal(45)") is None
    try:
        until(lambda: any(line.startswith("slow begins") for line in ask_rwsgi.record()), "the handler runs")
        # More than one worker's share of requests, while one handles the signal.
        for _ in range(10):
            assert ask_rwsgi.value("1 + 1") == 2
        assert not any(line.startswith("slow ends") for line in ask_rwsgi.record())
        assert "sig45" in [worker["status"] for worker in ask_rwsgi.server.stats()["workers"]]
    finally:
        go.touch()
    until(lambda: any(line.startswith("slow ends") for line in ask_rwsgi.record()), "the handler has ended")


def test_stats_list_what_processes_share_and_what_is_timed(ask_rwsgi):
    ask_rwsgi.value("uwsgi.cache_update('k', 'v'), uwsgi.metric_set('foo', 3), uwsgi.lock(1)")
    # A signal is counted after its handler.
    document = ask_rwsgi.server.wait_stats(lambda document: sum(worker["signals"] for worker in document["workers"]), "a signal is counted")
    cron = document["crons"][0]
    assert [cron[key] for key in ("minute", "hour", "day", "month", "week", "command")] == [-1] * 5 + ["signal 42"]
    assert {(timer["signal"], timer["seconds"]) for timer in document["timers"]} >= {(0, 1), (40, 1), (41, 1)}
    small, other = document["caches"]
    assert (small["name"], small["max_items"], small["keysize"], other["name"]) == ("small", 10, 8, "other")
    assert small["items"] >= 1
    assert document["metrics"]["foo"] == {"type": 0, "oid": "", "value": 3}
    pids = [worker["pid"] for worker in document["workers"]]
    locks = {name: pid for lock in document["locks"] for name, pid in lock.items()}
    assert set(locks) == {"user 0", "user 1", "user 2"} and locks["user 1"] in pids


def test_a_name_that_is_not_there_says_what_to_use(ask_rwsgi):
    page = (DOCS / "python-api.md").read_text()
    there, missing = page.split("## What is not there")
    for name in re.findall(r"^\| `(\w+)` \|", missing, re.MULTILINE):
        answer = ask_rwsgi(f"answer = uwsgi.{name}")
        assert answer.startswith(f"NotAvailable: uwsgi.{name} is not available in rwsgi: "), answer
        assert ask_rwsgi.value(f"hasattr(uwsgi, {name!r})") is False
    assert ask_rwsgi("answer = uwsgi.nonsense").startswith("AttributeError")
    assert ask_rwsgi.value("uwsgi is __import__('rwsgi')") is True
    named = set(re.findall(r"^\| `(\w+)` \|", there, re.MULTILINE))
    unnamed = [name for name in ask_rwsgi.value("dir(uwsgi)") if not name.startswith("_") and name not in named]
    assert unnamed == []


def test_the_page_has_every_name_of_a_real_uwsgi(ask):
    names = {name for name in ask.value("dir(uwsgi)") if not name.startswith("_")}
    page = set(re.findall(r"^\| `(\w+)` \|", (DOCS / "python-api.md").read_text(), re.MULTILINE))
    assert names - page == set()


@pytest.mark.only_rwsgi(why="uWSGI makes its shared memory again, and names its processes otherwise")
def test_a_mule_that_is_killed_is_replaced_and_loses_no_message_that_waits(serve, address, tmp_path):
    record = tmp_path / "record"
    (tmp_path / "watched").touch()
    server = serve(
        *("--http-socket", address, "--wsgi-file", "ask_uwsgi.py", "--master", "--processes", 2, "--mules", 2, "--locks", 2),
        env={"RECORD": str(record), "WATCHED": str(tmp_path / "watched")},
    )
    mule = until(lambda: next((p for p in server.processes() if "mule 2" in p.command), None), "mule 2 runs")
    until(lambda: record.exists() and "postfork mule2" in record.read_text(), "it is ready")
    os.kill(mule.pid, signal.SIGKILL)
    http.request(address, "POST", "/", body=b"worked_in_second('after')")
    until(lambda: "mulefunc-2 mule2 after" in record.read_text(), "its successor has the message", context=server.log)


@pytest.mark.only_rwsgi(why="uWSGI kills its mules")
def test_a_mule_that_is_about_to_wait_for_a_message_when_it_is_told_to_leave_leaves(serve, address, tmp_path):
    # The order comes while the call is under way, after Python has looked for signals: nothing of Python's runs in between.
    (tmp_path / "late.py").write_text(
        "import ctypes, functools, signal, uwsgi\n"
        "class Late:\n"
        "    __index__ = functools.partial(ctypes.pythonapi.PyErr_SetInterruptEx, int(signal.SIGTERM))\n"
        "try:\n"
        "    uwsgi.mule_get_msg(buffer_size=Late())\n"
        "finally:\n"
        "    uwsgi.log('it goes on')\n"
    )
    server = serve("--http-socket", address, "--wsgi-file", "foobar.py", f"--mule={tmp_path}/late.py")
    server.logged("it goes on")


LINGERING = """
import os, time, uwsgi

def linger():
    if uwsgi.mule_id():
        open("leaving", "w").close()
        while not os.path.exists("go"):
            time.sleep(0.01)
        open("left", "w").close()

uwsgi.atexit = linger

def application(environ, start_response):
    start_response("200 OK", [])
    return []
"""


@pytest.mark.only_rwsgi(why="real uWSGI's mules die of SIGTERM, without their hooks")
def test_a_mule_that_is_told_twice_to_leave_ends_in_peace(serve, address, tmp_path):
    (tmp_path / "lingering.py").write_text(LINGERING)
    server = serve("--http-socket", address, "--wsgi-file", "lingering.py", "--master", "--mules", 1, cwd=tmp_path)
    mule = until(lambda: next((p for p in server.processes() if "mule 1" in p.command), None), "the mule runs")
    server.logged("mule 1 started")
    os.kill(mule.pid, signal.SIGTERM)
    until((tmp_path / "leaving").exists, "it leaves", context=server.log)
    os.kill(mule.pid, signal.SIGTERM)
    (tmp_path / "go").touch()
    until((tmp_path / "left").exists, "it has left", context=server.log)
    server.logged("mule 1 .*has left")
    assert "Traceback" not in server.log()


@pytest.mark.only_rwsgi(why="uWSGI makes its shared memory again, and names its processes otherwise")
def test_what_is_shared_outlives_a_reload(serve, address, stats_at, tmp_path):
    record = tmp_path / "record"
    (tmp_path / "watched").touch()
    server = serve(
        *("--http-socket", address, "--stats", stats_at, "--wsgi-file", "ask_uwsgi.py", "--master", "--processes", 2),
        *("--mules", 2, "--cache2", "name=small,items=10", "--metric", "foo"),
        env={"RECORD": str(record), "WATCHED": str(tmp_path / "watched")},
    )

    def ask(code: str) -> str:
        return http.request(address, "POST", "/", body=code.encode()).text

    ask("uwsgi.cache_set('kept', 'here'); uwsgi.metric_inc('foo', 7)")
    assert ask("answer = uwsgi.reload()") == "True"
    server.wait_stats(lambda document: document["generation"] == 2 and all(
        worker["generation"] == 2 for worker in document["workers"]), "generation 2 serves")
    # A worker of the first generation may still take a connection that came before it left.
    until(lambda: ask("answer = uwsgi.is_a_reload") == "True", "a worker of generation 2 answers", context=server.log)
    assert ask("answer = uwsgi.cache_get('kept'), uwsgi.metric_get('foo')") == "(b'here', 7)"
    # Its timers are one generation's, not two's.
    assert len(server.stats()["timers"]) == 3
    until(lambda: record.read_text().count("postfork mule1") == 2, "the mule was renewed")


def test_a_process_that_outstays_its_own_time_is_ended(serve, address, stats_at, tmp_path):
    (tmp_path / "watched").touch()
    server = serve(
        *("--http-socket", address, "--stats", stats_at, "--wsgi-file", "ask_uwsgi.py", "--master", "--processes", 1),
        *("--mules", 2, "--locks", 2),
        env={"RECORD": str(tmp_path / "record"), "WATCHED": str(tmp_path / "watched")},
    )
    with pytest.raises(http.Closed):
        http.request(address, "POST", "/", body=b"uwsgi.set_user_harakiri(1); time.sleep(30)")
    server.wait_stats(lambda document: document["workers"][0]["harakiri_count"] == 1, "it was counted")


def test_outside_of_the_server_there_is_no_module(venv_bin):
    def python(code: str) -> str:
        run = subprocess.run([str(venv_bin / "python"), "-c", code], capture_output=True, text=True, cwd="/")
        return run.stderr.strip().splitlines()[-1]

    assert python("import uwsgi") == "ModuleNotFoundError: No module named 'uwsgi'"
    assert "works inside the server only" in python("import uwsgidecorators")
    assert "inside it only" in python("import rwsgi; rwsgi.worker_id")
