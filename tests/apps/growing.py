"""An application whose memory grows with each request to /leak, that can be held up, and that has a cache to warm."""

import os
import socket
import threading
import time

KEPT = []
CACHE = {}
THREADS = []


class Order:
    def __init__(self, number):
        self.number = number
        self.lines = [str(number) * 10, number]


def leak():
    KEPT.extend(Order(number) for number in range(100))


def warm():
    for number in range(20000):
        CACHE.setdefault(number, f"value {number} " * 20)


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/leak":
        leak()
    elif path == "/sleep":
        time.sleep(float(environ["QUERY_STRING"]))
    elif path == "/hold":
        # A minute bounds a failed test.
        end = time.monotonic() + 60
        while not os.path.exists(environ["QUERY_STRING"]) and time.monotonic() < end:
            time.sleep(0.01)
    elif path == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (b"x" for _ in range(100))
    elif path == "/warm":
        warm()
    elif path == "/thread":
        THREADS.append(threading.Thread(target=time.sleep, args=(60,), daemon=True, name="refresher"))
        THREADS[-1].start()
    elif path == "/connect":
        host, port = environ["QUERY_STRING"].rsplit(":", 1)
        THREADS.append(socket.create_connection((host, int(port))))
    body = f"{os.getpid()} {len(CACHE)} {len(KEPT)}".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def forget_connections():
    """For uwsgi.before_refork."""
    while THREADS and isinstance(THREADS[-1], socket.socket):
        THREADS.pop().close()


if os.environ.get("CLOSES"):
    import uwsgi

    uwsgi.before_refork = forget_connections
