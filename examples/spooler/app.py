"""Work that a request does not wait for: rwsgi spooler.ini

With `--set debug=true` nothing is queued: the functions are called where they are, so that breakpoints, tracebacks and
the order of things are those of an ordinary call.
"""

import os
import time

import uwsgi
from flask import Flask, request
from uwsgidecorators import spool

app = Flask(__name__)
DEBUG = "debug" in uwsgi.opt


def later(function):
    """The function, queued for the spooler when it is called; called directly when debugging."""
    return function if DEBUG else spool(function, pass_arguments=True)


@later
def thumbnail(path, size=128):
    time.sleep(0.1)
    with open(f"{path}.thumbnail", "w") as file:
        file.write(f"{size} by process {os.getpid()}\n")


@app.post("/upload")
def upload():
    path = request.get_json()["path"]
    thumbnail(path, size=64)
    return {"path": path, "pid": os.getpid()}


@app.post("/upload/tonight")
def upload_tonight():
    """Not before a moment, and before jobs without a priority that are due then."""
    options = request.get_json()
    when = {} if DEBUG else {"at": options["at"], "priority": "5"}
    thumbnail(options["path"], **when)
    return {"path": options["path"]}
