"""Many threads of one process at once on the same objects, the module `uwsgi`, and what one of them keeps of its request."""

import gc
import hashlib
import json
import os
import sys
import threading
import time

import uwsgi

LOCK = threading.Lock()
# Guarded by the lock, or changed by calls that Python makes in one step.
COUNTS = {"all": 0}
SEEN = []
KEPT = []
OF_THREAD = threading.local()
MET = threading.Barrier(2)
SPINNING = [None, None]
# How long a thread waits for another, seconds.
PATIENCE = 30

uwsgi.register_rpc("twice", lambda text: text + text)


def count(number):
    with LOCK:
        COUNTS["all"] += 1
    SEEN.append(number)


def use_api(number):
    """What others do meanwhile must not show in any of it."""
    uwsgi.cache_inc("cached")
    uwsgi.metric_inc("counted")
    uwsgi.set_logvar("number", number)
    uwsgi.lock(1)
    try:
        # Two steps, which nothing but the lock makes one.
        held = int(uwsgi.cache_get("guarded") or b"0")
        uwsgi.cache_update("guarded", str(held + 1))
    finally:
        uwsgi.unlock(1)
    uwsgi.is_locked(0)
    return uwsgi.call("twice", number) == (number * 2).encode() and uwsgi.get_logvar("number") == number.encode()


def use_kept(start_response):
    """What a request has left is of no use to any other, in any thread: returns what went wrong."""
    before, OF_THREAD.kept = getattr(OF_THREAD, "kept", None), start_response
    if before is start_response:
        return "the object of a request was given to another"
    if before is not None:
        # Its request is over.
        KEPT.append(before)
    try:
        kept = KEPT.pop(0)
    except IndexError:
        return ""
    try:
        kept("500 Not Mine", [])
    except RuntimeError as error:
        return "" if str(error) == "the request is over" else str(error)
    return "another request was answered"


def read_beside(environ, start_response):
    """Another thread reads the body while this one answers."""
    read, failures = [], []

    def reader():
        try:
            while line := environ["wsgi.input"].readline():
                read.append(line)
        except Exception as error:
            failures.append(repr(error))

    thread = threading.Thread(target=reader)
    thread.start()
    try:
        for _ in range(50):
            start_response("200 OK", [], None if _ == 0 else (ValueError, ValueError(), None))
    except Exception as error:
        failures.append(repr(error))
    thread.join()
    return failures or [hashlib.sha256(b"".join(read)).hexdigest()]


def spin(which):
    """Executes Python, and never waits, until another thread does the same at the same time."""
    SPINNING[which] = None
    MET.wait(PATIENCE)
    SPINNING[which] = end = time.monotonic() + PATIENCE
    while SPINNING[1 - which] is None:
        if time.monotonic() > end:
            return "alone"
    return "together"


def pieces(number):
    for n in range(20):
        yield f"{number}:{n}\n".encode()


def application(environ, start_response):
    path, number = environ["PATH_INFO"], environ["QUERY_STRING"]
    if path == "/upload-beside":
        return [b"\n".join(text.encode() for text in read_beside(environ, start_response))]
    if path == "/raise":
        count(number)
        raise ValueError(number)
    start = [("Content-Type", "text/plain"), ("X-Mark", environ.get("HTTP_X_MARK", ""))]
    if path == "/state":
        cached = uwsgi.cache_num("cached"), uwsgi.metric_get("counted"), int(uwsgi.cache_get("guarded") or b"0")
        seen = {"seen": len(SEEN), "different": len(set(SEEN)), "api": cached}
        answer = json.dumps({**COUNTS, **seen})
    elif path == "/lock":
        answer = str(getattr(sys, "_is_gil_enabled", lambda: True)())
    elif path == "/alone":
        # Where there is a global lock, the thread that has it keeps it for that long.
        sys.setswitchinterval(PATIENCE * 10)
        answer = "set"
    elif path == "/spin":
        answer = spin(int(number))
    elif path == "/stream":
        count(number)
        start_response("200 OK", start)
        return pieces(number)
    elif path == "/upload":
        count(number)
        body = environ["wsgi.input"]
        digest = hashlib.sha256(body.read(1000))
        for line in body:
            digest.update(line)
        answer = digest.hexdigest()
    elif path == "/api":
        count(number)
        answer = number if use_api(number) else "mixed up"
    elif path == "/keep":
        count(number)
        answer = use_kept(start_response) or number
    elif path == "/fork":
        count(number)
        child = os.fork()
        if child == 0:
            os._exit(0)
        answer = number if os.waitpid(child, 0)[1] == 0 else "the child failed"
    elif path == "/collect":
        count(number)
        gc.collect()
        answer = number
    else:
        count(number)
        answer = number
    start_response("200 OK", [*start, ("Content-Length", str(len(answer)))])
    return [answer.encode()]
