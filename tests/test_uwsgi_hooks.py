"""What the application gives to the `uwsgi` module, and takes back: functions, hooks, names."""

from __future__ import annotations

import json
import os
import signal

import pytest

from rig import http, processes
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="this is about rwsgi's own inside")

# What `last` is the last reference to: it releases the GIL when it is dropped, until another thread has asked
# the module for something.
FINALIZED = """
import threading, uwsgi

class Callable:
    def __call__(self, *_):
        return b"called"

    def __del__(self):
        going.set()
        was_answered.append(answered.wait(20))

going, answered, was_answered = threading.Event(), threading.Event(), []

def ask():
    going.wait()
    ASK
    answered.set()

def application(environ, start_response):
    other = threading.Thread(target=ask)
    GIVE
    other.start()
    GIVE
    other.join()
    start_response("200 OK", [])
    return [repr(was_answered).encode()]
"""


@pytest.mark.parametrize(
    "give, ask",
    [
        ("uwsgi.register_rpc('f', Callable())", "uwsgi.register_rpc('g', print)"),
        ("uwsgi.register_rpc('f', Callable())", "uwsgi.call('f')"),
        ("uwsgi.register_rpc('f', Callable())", "uwsgi.rpc_list()"),
        ("uwsgi.register_signal(60, '', Callable())", "uwsgi.register_signal(61, '', print)"),
        ("uwsgi.register_signal(60, '', Callable())", "uwsgi.signal_registered(60)"),
    ],
)
def test_a_function_that_is_replaced_may_take_its_time_to_go(serve, address, tmp_path, give, ask):
    (tmp_path / "app.py").write_text(FINALIZED.replace("GIVE", give).replace("ASK", ask))
    serve("--http-socket", address, "--wsgi-file", "app.py", "--master", cwd=tmp_path)
    assert http.get(address, "/").text == "[True]"


REGISTERING = """
import os, uwsgi

def handle(number):
    open("handling", "w").close()
    left = 1000
    while left:
        uwsgi.register_signal(61, "", print)
        left -= os.path.exists("go")
    open("handled", "w").close()

uwsgi.register_signal(60, "", handle)

def application(environ, start_response):
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]
"""


def test_a_worker_that_leaves_lets_its_handler_register_another(serve, address, stats_at, tmp_path):
    (tmp_path / "app.py").write_text(REGISTERING + "uwsgi.signal(60)\n")
    server = serve("--http-socket", address, "--stats", stats_at, "--wsgi-file", "app.py", "--master", cwd=tmp_path)
    until((tmp_path / "handling").exists, "the handler runs", context=server.log)
    with http.Connection(address) as connection:
        worker = int(connection.request("GET", "/").text)
        os.kill(worker, signal.SIGTERM)
        assert connection.socket.recv(1) == b"", "it leaves"
    (tmp_path / "go").touch()
    until(lambda: not processes.alive(worker), "it has left", context=server.log)
    assert (tmp_path / "handled").exists()


LEAVING = """
import atexit, sys, uwsgi

def note(what):
    with open("noted", "a") as file:
        file.write(what + "\\n")

def leave():
    note("postfork")
    sys.exit(STATUS)

uwsgi.post_fork_hook = leave
uwsgi.atexit = lambda: note("uwsgi.atexit")
atexit.register(note, "atexit")

def application(environ, start_response):
    start_response("200 OK", [])
    return []
"""


@pytest.mark.parametrize("status, shown", [("", 0), ("7", 7), ("'enough'", 1)])
def test_a_worker_that_its_postfork_hook_ends_has_died_early(serve, address, tmp_path, status, shown):
    (tmp_path / "app.py").write_text(LEAVING.replace("STATUS", status))
    server = serve("--http-socket", address, "--wsgi-file", "app.py", "--master", cwd=tmp_path)
    # Each early death in a row waits longer: there is no storm.
    for delay in (1, 2):
        server.logged(rf"worker 1 \(pid \d+\) died: exit status {shown}; replacing it in {delay} s")
    noted = (tmp_path / "noted").read_text().split()
    assert noted[:3] == ["postfork", "uwsgi.atexit", "atexit"]
    assert len(server.lines("uwsgi.post_fork_hook")) >= 2, "the log says who ended it"
    assert status.strip("'") in server.log()


@pytest.mark.parametrize("status", ["", "7"])
def test_a_mule_that_its_postfork_hook_ends_runs_its_hooks(serve, address, tmp_path, status):
    (tmp_path / "app.py").write_text(
        LEAVING.replace("STATUS", status).replace("def leave():", "def leave():\n    if not uwsgi.mule_id(): return"))
    server = serve("--http-socket", address, "--wsgi-file", "app.py", "--master", "--mules", 1, cwd=tmp_path)
    server.logged(r"mule 1 .*in 1 s")
    assert (tmp_path / "noted").read_text().split()[:3] == ["postfork", "uwsgi.atexit", "atexit"]


def test_a_long_name_is_cut_and_leaves_the_environment_alone(serve, address):
    serve("--http-socket", address, "--wsgi-file", "long_name.py", "--master", env={"LAST": "x" * 500})
    told = json.loads(http.get(address, "/").body)
    # Other threads may read the environment at this very moment.
    assert told["is_untouched"]
    assert len(told["name"]) >= 512 and set(told["name"]) == {"n"}
    assert told["last"] == "x" * 500


BABBLING = """
import os, socket, uwsgi

def babble(*packets):
    # Without mules and handlers of signals, the call socket is the only one of its kind.
    for number in os.listdir("/proc/self/fd"):
        try:
            found = socket.socket(fileno=os.dup(int(number)))
        except OSError:
            continue
        if (found.family, found.type) == (socket.AF_UNIX, socket.SOCK_SEQPACKET):
            for packet in packets:
                found.send(packet)
        found.close()

def application(environ, start_response):
    role = b'{"Worker":{"worker":9999,"slot":4294967295}}'
    babble(
        b"",
        b"\\xff{",
        b'{"generation":1,"what":{"Schedule":{"signal":7,"when":{"Every":{"seconds":0,"times":0,"rb":true}}}}}',
        b'{"generation":1,"what":{"Watch":{"signal":7,"path":"' + b"p" * 20000 + b'"}}}',
        b'{"generation":1,"what":{"Harakiri":{"role":' + role + b',"seconds":1}}}',
        b'{"generation":1,"what":{"Listen":' + role + b'}}',
    )
    start_response("200 OK", [])
    return [str(len(uwsgi.workers())).encode()]
"""


def test_the_master_refuses_what_no_process_of_ours_says_and_goes_on(serve, address, tmp_path):
    (tmp_path / "app.py").write_text(BABBLING)
    server = serve("--http-socket", address, "--wsgi-file", "app.py", "--master", cwd=tmp_path)
    # It still answers.
    assert http.get(address, "/").text == "1"
    for why in ("it is empty", "none of the messages", "every 0 seconds", "longer than 16384 bytes", "no descriptor"):
        server.logged(why)
