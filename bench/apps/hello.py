"""One application for every server: a route for each kind of work. Only standard WSGI, nothing that one of them lacks."""

import os
import time

PLAIN = ("Content-Type", "text/plain")
HELLO = b"Hello World\n"
SIZES = {"/10kB": b"x" * 10_000, "/1MB": b"x" * 1_000_000}
CHUNK = b"y" * 100
FILE = os.environ.get("BENCH_FILE", "")


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/":
        return answer(start_response, HELLO)
    if path in SIZES:
        return answer(start_response, SIZES[path])
    return ROUTES[path](environ, start_response)


def answer(start_response, body):
    start_response("200 OK", [PLAIN, ("Content-Length", str(len(body)))])
    return [body]


def upload(environ, start_response):
    """Reads the body in pieces, as frameworks do, and tells its length."""
    left = int(environ["CONTENT_LENGTH"])
    read = environ["wsgi.input"].read
    while left:
        piece = read(min(left, 65536))
        if not piece:
            start_response("400 Bad Request", [PLAIN, ("Content-Length", "0")])
            return []
        left -= len(piece)
    return answer(start_response, environ["CONTENT_LENGTH"].encode())


def wait(seconds):
    def route(environ, start_response):
        time.sleep(seconds)
        return answer(start_response, HELLO)

    return route


def pieces(number):
    """A body of so many pieces, whose length the server is not told."""

    def route(environ, start_response):
        start_response("200 OK", [PLAIN])
        return (CHUNK for _ in range(number))

    return route


def file(environ, start_response):
    opened = open(FILE, "rb")
    start_response("200 OK", [PLAIN, ("Content-Length", str(os.fstat(opened.fileno()).st_size))])
    wrapper = environ.get("wsgi.file_wrapper")
    if wrapper is not None:
        return wrapper(opened, 65536)
    return iter(lambda: opened.read(65536), b"")


ROUTES = {
    "/upload": upload,
    "/10ms": wait(0.01),
    "/200ms": wait(0.2),
    "/chunked": pieces(10),
    "/stream": pieces(1000),
    "/file": file,
}
