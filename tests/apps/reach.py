"""Reaches its request through the `uwsgi` module: sends files, ends responses early, adds to the log, and has a farm."""

import os
import time

import uwsgi
from uwsgidecorators import farm, mulemsg


@mulemsg(1)
def told(message):
    uwsgi.log(f"mule {uwsgi.mule_id()} was told {message!r}")


@farm("f")
def told_of_farm(message):
    uwsgi.log(f"farm mule {uwsgi.mule_id()} was told {message!r}")


def application(environ, start_response):
    path, go = environ["PATH_INFO"], environ["QUERY_STRING"]
    if path == "/file":
        start_response("200 OK", [("Content-Length", "10")])
        uwsgi.log(f"sendfile {uwsgi.sendfile(go)}")
        return []
    if path == "/part":
        start_response("200 OK", [("Content-Length", "3")])
        uwsgi.log(f"sendfile {uwsgi.sendfile(open(go, 'rb'), 0, 2, 3)}")
        return []
    if path == "/early":
        start_response("200 OK", [("Content-Length", "2")])(b"ok")
        uwsgi.disconnect()
        end = time.monotonic() + 60
        while not os.path.exists(go) and time.monotonic() < end:
            time.sleep(0.01)
        uwsgi.log("went on")
        return []
    if path == "/noted":
        uwsgi.set_logvar("user", "somebody")
        uwsgi.log_this_request()
    if path == "/tell":
        uwsgi.mule_msg(b"hello", 1)
        uwsgi.farm_msg("f", b"work")
    start_response("200 OK", [("Content-Length", "4")])
    return [b"done"]
