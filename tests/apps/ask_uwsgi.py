"""Runs the Python that it is sent, in one of the server's processes, and answers with what `answer` is then.

It uses every kind of decorator, and writes down where what they decorate ran: a line each in the file RECORD.
"""

import json
import os
import threading
import time

import uwsgi
from uwsgidecorators import *  # noqa: F403

RECORD = os.environ["RECORD"]


def where():
    if uwsgi.mule_id():
        return f"mule{uwsgi.mule_id()}"
    return f"worker{uwsgi.worker_id()}"


def record(*words):
    with open(RECORD, "a") as file:
        file.write(" ".join(str(word) for word in words) + "\n")


@postfork
def forked():
    record("postfork", where())


@postfork(2)
def forked_second():
    record("postfork-2", where())


@postfork
@thread
def in_thread():
    record("thread", where(), threading.current_thread().daemon)


@timer(1)
def ticked(number):
    record("timer", number)


@timer(1, target="workers", signum=40)
def ticked_everywhere(number):
    record("timer-workers", number, where())


@rbtimer(1, target="worker2", signum=41)
def ticked_in_second(number):
    record("rbtimer", number, where())


@cron(-1, -1, -1, -1, -1, signum=42)
def each_minute(number):
    record("cron", number)


@filemon(os.environ["WATCHED"], signum=43)
def changed(number):
    record("filemon", number)


@signal(44, target="mule1")
def in_mule(number):
    record("signal", number, where())


@signal(45)
def slow(number):
    record("slow begins", where())
    # Until the test says go on; a minute bounds a failed test.
    end = time.monotonic() + 60
    while not os.path.exists(os.path.join(os.path.dirname(RECORD), "go")) and time.monotonic() < end:
        time.sleep(0.01)
    record("slow ends", where())


@signal(46)
def broken(number):
    raise ValueError("broken on purpose")


@mulefunc
def worked(*args, **kwargs):
    record("mulefunc", where(), args, sorted(kwargs.items()))


@mulefunc(2)
def worked_in_second(text):
    record("mulefunc-2", where(), text)


@rpc("double")
def double(text):
    return text + text


@lock
def locked():
    return uwsgi.is_locked()


@harakiri(20)
def watched(number):
    return number + 1


def application(environ, start_response):
    length = int(environ.get("CONTENT_LENGTH") or 0)
    scope = {**globals(), "environ": environ}
    try:
        exec(environ["wsgi.input"].read(length).decode(), scope)
        answer = repr(scope.get("answer"))
    except Exception as raised:
        answer = f"{type(raised).__name__}: {raised}"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [answer.encode()]
