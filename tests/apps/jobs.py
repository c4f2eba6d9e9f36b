"""Jobs for the spooler, behind Flask. Every job writes down in the file JOBS_RECORD that it begins and that it ends."""

import os
import time

import uwsgi
from flask import Flask, request
from uwsgidecorators import spool, spoolraw

VERSION = "one"
app = Flask(__name__)


def note(*words):
    line = " ".join(str(word) for word in words) + "\n"
    fd = os.open(os.environ["JOBS_RECORD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(fd, line.encode())
    os.close(fd)


def wait_for(path):
    """Goes on until the file is there; a minute bounds a failed test."""
    end = time.monotonic() + 60
    while not os.path.exists(path) and time.monotonic() < end:
        time.sleep(0.01)


@spool(pass_arguments=True)
def run(number, until=None, fail_without=None, seconds=0):
    note("begin", number, os.getpid(), VERSION)
    if until:
        wait_for(until)
    time.sleep(seconds)
    if fail_without and not os.path.exists(fail_without):
        raise RuntimeError(f"job {number} is not to be done yet")
    note("end", number, os.getpid(), f"{time.time():.3f}", os.getcwd())


@spool
def with_body(job):
    note("body", len(job["body"]), job["name"])


@spool(pass_arguments=True)
def queues_another(number):
    run(number)


@spoolraw
def returns(job):
    note("returns", job["what"])
    return int(job["what"])


@app.post("/run")
def queue_some():
    """Queues the jobs `first` to `last`, and answers with the name of the last one's file."""
    options = request.get_json()
    first, last = options.pop("first"), options.pop("last")
    for number in range(first, last + 1):
        name = run(number, **options)
    return os.path.basename(name)


@app.post("/body")
def queue_with_body():
    with_body({"name": "large", "body": request.get_data()})
    return ""


@app.post("/another")
def queue_what_queues():
    queues_another(request.get_json()["number"])
    return ""


@app.post("/returns/<what>")
def queue_returning(what):
    returns({"what": what})
    return ""


@app.post("/try/<what>")
def try_to_queue(what):
    """What spool() says to arguments that it does not like."""
    arguments = {
        "text-names": ({"a": b"b"},),
        "text-values": ({b"a": "b"},),
        "number": ({b"a": 3},),
        "list": (["a"],),
        "too-large": ({b"a": b"x" * 40_000, b"b": b"x" * 40_000},),
        "elsewhere": ({b"spooler": b"/nowhere/at/all"},),
    }[what]
    try:
        uwsgi.spool(*arguments)
    except ValueError as error:
        return f"ValueError: {error}"
    return "queued"


@app.get("/jobs")
def jobs():
    return {
        "jobs": [os.path.basename(job.decode()) for job in uwsgi.spooler_jobs()],
        "pids": uwsgi.spooler_pids(),
        "first": uwsgi.spooler_pid(),
        "spoolers": [path.decode() for path in uwsgi.spoolers],
    }


@app.get("/task/<name>")
def task(name):
    path = os.path.join(uwsgi.spoolers[0].decode(), name)
    found = uwsgi.spooler_get_task(path)
    return "none" if found is None else found[b"ud_spool_func"]


@app.post("/frequency/<int:seconds>")
def frequency(seconds):
    return str(uwsgi.set_spooler_frequency(seconds))
