"""A plain WSGI application with something of everything: fast, slow, failing, large, streamed and uploading requests.

    /               what there is
    /fast           answers at once
    /slow?ms=500    takes its time (at most 10 s)
    /fail           raises an exception
    /large?kb=100   a large response (at most 100 MB)
    /upload         POST: counts and hashes the body
    /stream?lines=5 one line at a time
    /status?code=404
"""

import hashlib
import time
from urllib.parse import parse_qs


def number(environ, name, default, most):
    """A number from the query string, within bounds."""
    try:
        value = int(parse_qs(environ["QUERY_STRING"])[name][0])
    except (KeyError, ValueError):
        value = default
    return max(0, min(value, most))


def index(environ):
    return "200 OK", [__doc__.encode()]


def fast(environ):
    return "200 OK", [b"fast\n"]


def slow(environ):
    milliseconds = number(environ, "ms", 500, 10_000)
    time.sleep(milliseconds / 1000)
    return "200 OK", [f"took {milliseconds} ms\n".encode()]


def fail(environ):
    raise RuntimeError("this route always fails")


def large(environ):
    return "200 OK", [b"0123456789abcde\n" * (number(environ, "kb", 100, 102_400) * 64)]


def upload(environ):
    length, digest = 0, hashlib.sha256()
    for piece in iter(lambda: environ["wsgi.input"].read(65536), b""):
        length += len(piece)
        digest.update(piece)
    return "200 OK", [f"{length} bytes, sha256 {digest.hexdigest()}\n".encode()]


def stream(environ):
    return "200 OK", (f"line {line}\n".encode() for line in range(number(environ, "lines", 5, 1_000_000)))


def status(environ):
    code = max(200, number(environ, "code", 404, 599))
    return f"{code} As You Wish", [] if code in (204, 304) else [f"status {code}\n".encode()]


ROUTES = {
    "/": index,
    "/fast": fast,
    "/slow": slow,
    "/fail": fail,
    "/large": large,
    "/upload": upload,
    "/stream": stream,
    "/status": status,
}


def application(environ, start_response):
    route = ROUTES.get(environ["PATH_INFO"])
    code, body = route(environ) if route else ("404 Not Found", [b"no such page\n"])
    start_response(code, [("Content-Type", "text/plain")])
    return body
