"""An application that tells the routes of some of its requests, in every way that there is."""

import os
import time

try:
    import uwsgi
except ImportError:  # another server
    uwsgi = None

PLAIN = [("Content-Type", "text/plain")]


def wait_for(path):
    end = time.monotonic() + 60
    while not os.path.exists(path) and time.monotonic() < end:
        time.sleep(0.005)


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path.startswith("/logvar/"):
        uwsgi.set_logvar("route", "by logvar")
    elif path.startswith("/call/"):
        uwsgi.set_route("by call")
    elif path.startswith("/environ/"):
        environ["rwsgi.route"] = "by environ"
    elif path.startswith("/late/"):
        return late(environ, start_response)
    elif path.startswith("/hold/"):
        uwsgi.set_route(b"held \xc3\xa4\x07\xff")
        wait_for(environ["QUERY_STRING"])
    elif path.startswith("/wait/"):
        wait_for(environ["QUERY_STRING"])
    elif path.startswith("/fail/"):
        raise ValueError("no")
    elif path.startswith("/odd/"):
        environ["rwsgi.route"] = ["no text"]
    elif path.startswith("/grow/"):
        KEPT.append(bytearray(b"x" * 4_000_000))
    elif path.startswith("/missing/"):
        start_response("404 Not Found", PLAIN)
        return [b"missing\n"]
    start_response("200 OK", PLAIN)
    return [b"%d\n" % os.getpid()]


KEPT = []


def late(environ, start_response):
    start_response("200 OK", PLAIN)
    yield b"some\n"
    environ["rwsgi.route"] = "told late"
