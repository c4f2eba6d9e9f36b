"""What each worker and each thread runs of it tells whose lines were counted."""

import threading

import uwsgi

together = threading.Barrier(2)


def application(environ, start_response):
    if environ["PATH_INFO"] == "/together":
        # Both threads are in here, so each runs a line of its own.
        if together.wait(30) == 0:
            by = "one thread"
        else:
            by = "another thread"
    elif uwsgi.worker_id() == 1:
        by = "worker 1"
    else:
        by = "worker 2"
    start_response("200 OK", [])
    return [by.encode()]
