"""The first worker waits for a debugger: it listens after the fork, in the process that is to be debugged."""

import os
import threading

import debugpy
import uwsgi
from uwsgidecorators import postfork

together = threading.Barrier(uwsgi.cores)


@postfork(1)
def listen():
    debugpy.listen(("127.0.0.1", int(os.environ["DEBUG_PORT"])))


def application(environ, start_response):
    start_response("200 OK", [])
    # The debugger learns of threads that Python has not started; then each has a request.
    debugpy.debug_this_thread()
    together.wait(30)
    answer = "from a thread that goes on"
    return [answer.encode()]  # the line to stop at
