"""One application with a route for everything that PEP 3333 lets an application do, right and wrong.

`?record=FILE` is where a route writes down what it saw, for what no answer can carry.
"""

import hashlib
import io
import json
import os
import sys
import time
from urllib.parse import parse_qs

ROUTES = {}
PLAIN = [("Content-Type", "text/plain")]


def route(function):
    ROUTES["/" + function.__name__.replace("_", "-")] = function
    return function


def query(environ):
    return {name: values[-1] for name, values in parse_qs(environ["QUERY_STRING"]).items()}


def record(environ, line):
    path = query(environ).get("record")
    if path:
        with open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")


def wait_for(path):
    """Waits until the test says go on, by making the file; a minute bounds a failed test."""
    end = time.monotonic() + 60
    while not os.path.exists(path) and time.monotonic() < end:
        time.sleep(0.005)


class Body:
    """An iterable that writes down its close()."""

    def __init__(self, environ, chunks):
        self.environ, self.chunks = environ, chunks

    def __iter__(self):
        return iter(self.chunks)

    def close(self):
        record(self.environ, "closed")


def application(environ, start_response):
    return ROUTES[environ["PATH_INFO"]](environ, start_response)


# What comes in


@route
def environ(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    seen = {name: value for name, value in environ.items() if isinstance(value, (str, bool, int, tuple))}
    seen["type"] = type(environ).__name__
    seen["types"] = {name: type(value).__name__ for name, value in environ.items() if name.isupper()}
    environ["LEFT_BEHIND"] = "1"
    return [json.dumps(seen).encode()]


@route
def read(environ, start_response):
    """Runs `?calls=[["read", 3], ["readline"], ["list"]]` on wsgi.input, and answers with what each gave."""
    results = []
    for name, *arguments in json.loads(query(environ)["calls"]):
        stream = environ["wsgi.input"]
        got = list(stream) if name == "list" else getattr(stream, name)(*arguments)
        results.append([line.decode("latin-1") for line in got] if isinstance(got, list) else got.decode("latin-1"))
    start_response("200 OK", PLAIN)
    return [json.dumps(results).encode()]


@route
def digest(environ, start_response):
    """Reads the body in pieces and answers with its length and hash; writes down an error in reading."""
    total, sha = 0, hashlib.sha256()
    try:
        for piece in iter(lambda: environ["wsgi.input"].read(262144), b""):
            total += len(piece)
            sha.update(piece)
    except Exception as error:
        record(environ, f"error {type(error).__name__}: {error}")
        raise
    record(environ, f"whole {total}")
    start_response("200 OK", PLAIN)
    return [f"{total} {sha.hexdigest()}".encode()]


@route
def count(environ, start_response):
    """Reads the body in pieces and answers with its length alone."""
    total = sum(map(len, iter(lambda: environ["wsgi.input"].read(1048576), b"")))
    start_response("200 OK", PLAIN)
    return [str(total).encode()]


@route
def unread(environ, start_response):
    start_response("200 OK", PLAIN)
    return [b"not read"]


@route
def errors(environ, start_response):
    stream = environ["wsgi.errors"]
    stream.write("written " + query(environ)["token"] + "\n")
    stream.writelines(["one of lines ", query(environ)["token"], "\n"])
    stream.write("without an end of line, caf\u00e9 \u2603")
    stream.flush()
    start_response("200 OK", PLAIN)
    return [b""]


# What goes out


@route
def headers(environ, start_response):
    start_response("299 Something Else", [("X-B", "2"), ("X-A", "1"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"),
                                          ("X-Latin", "caf\u00e9"), ("Content-Type", "text/plain")])
    return [b"ok"]


@route
def empty(environ, start_response):
    start_response("200 OK", PLAIN)
    return []


@route
def chunks(environ, start_response):
    start_response("200 OK", PLAIN)
    return Body(environ, [b"", b"one,", b"", b"two,", b"x" * 100000, b"", b",end", b""])


@route
def write(environ, start_response):
    out = start_response("200 OK", PLAIN)
    out(b"written ")
    out(b"")
    out(b"twice ")
    return Body(environ, [b"and ", b"iterated"])


@route
def stepwise(environ, start_response):
    """Sends a part, and the next one only when the test has seen it."""
    how = query(environ)
    out = start_response("200 OK", PLAIN)
    if how["by"] == "write":
        out(b"first ")
        wait_for(how["go"])
        return [b"second"]

    def parts():
        yield b"first "
        wait_for(how["go"])
        yield b"second"

    return parts()


@route
def late_start(environ, start_response):
    """A generator calls start_response only when it is first asked."""
    start_response("200 OK", PLAIN)
    yield b"late"


@route
def endless(environ, start_response):
    write = start_response("200 OK", PLAIN)
    try:
        while query(environ).get("by") == "write":
            write(b"x" * 65536)
    except OSError:
        record(environ, "closed")
        raise

    def parts():
        while True:
            yield b"x" * 65536

    return Body(environ, parts())


@route
def status(environ, start_response):
    """Any status, with the body that `?body=` says."""
    how = query(environ)
    body = how.get("body", "").encode()
    fields = [("Content-Length", str(len(body)))] if "length" in how else []
    start_response(how["code"] + " Said So", fields)
    return Body(environ, [body] if body else [])


@route
def slow(environ, start_response):
    """Answers when the test says go on."""
    record(environ, f"in {os.getpid()}")
    wait_for(query(environ)["go"])
    start_response("200 OK", PLAIN)
    return [str(os.getpid()).encode()]


@route
def brief(environ, start_response):
    """Takes as long as a page does."""
    time.sleep(0.003)
    start_response("200 OK", PLAIN)
    return [b"brief"]


@route
def pid(environ, start_response):
    start_response("200 OK", PLAIN)
    return [str(os.getpid()).encode()]


@route
def large(environ, start_response):
    size = int(query(environ)["bytes"])
    start_response("200 OK", PLAIN + [("Content-Length", str(size))])
    return [b"y" * size]


# What goes wrong


@route
def fail(environ, start_response):
    raise ValueError("failed " + query(environ).get("token", ""))


@route
def fail_iterating(environ, start_response):
    start_response("200 OK", PLAIN + ([] if "unsized" in query(environ) else [("Content-Length", "1000")]))

    def parts():
        for _ in range(int(query(environ).get("after", 0))):
            yield b"z" * 10
        raise ValueError("failed " + query(environ)["token"])

    return Body(environ, parts())


@route
def exc_info_before(environ, start_response):
    start_response("200 OK", PLAIN + [("X-Of", "the first")])
    try:
        raise ValueError("changed its mind")
    except ValueError:
        start_response("503 Sorry", [("Content-Type", "text/html")], sys.exc_info())
    return [b"sorry"]


@route
def exc_info_after(environ, start_response):
    start_response("200 OK", PLAIN + [("Content-Length", "100")])
    yield b"sent"
    try:
        raise ValueError("too late " + query(environ)["token"])
    except ValueError:
        start_response("500 Sorry", [("Content-Type", "text/html")], sys.exc_info())
    yield b"never sent"


@route
def started_twice(environ, start_response):
    start_response("200 OK", PLAIN)
    start_response("200 OK", PLAIN + [("X-Token", query(environ)["token"])])
    return [b"never sent"]


@route
def never_started(environ, start_response):
    return [b"never sent"]


@route
def returns_str(environ, start_response):
    start_response("200 OK", PLAIN)
    return "text, not bytes"


@route
def yields_str(environ, start_response):
    start_response("200 OK", PLAIN)
    return ["text, not bytes"]


@route
def yields_str_later(environ, start_response):
    start_response("200 OK", PLAIN)
    return [b"bytes first ", "then text"]


@route
def returns_none(environ, start_response):
    start_response("200 OK", PLAIN)


@route
def too_long(environ, start_response):
    """Nine bytes where five were announced, `by` every way there is to give a body."""
    by = query(environ).get("by", "iterable")
    write = start_response("200 OK", PLAIN + [("Content-Length", "5")])
    if by == "bytes":
        return [b"123456789"]
    if by == "list":
        return [b"123", b"456", b"789"]
    if by == "after-the-end":
        return Body(environ, [b"12345", b"6789"])
    if by == "write":
        write(b"123")
        write(b"456789")
    if by == "write-caught":
        for piece in (b"123", b"456", b"789"):
            try:
                write(piece)
            except AssertionError:
                pass
        return []
    if by == "write-and-list":
        write(b"123")
        return [b"456", b"789"]
    return Body(environ, [b"123", b"456", b"789"])


@route
def too_short(environ, start_response):
    start_response("200 OK", PLAIN + [("Content-Length", "50")])
    return Body(environ, [b"123", b"456"])


@route
def bad_header(environ, start_response):
    bad = {
        "newline": ("X-Bad", "a\r\nX-Injected: yes"),
        "lf": ("X-Bad", "a\nX-Injected: yes"),
        "name": ("X Bad", "a"),
        "colon": ("X-Bad:", "a"),
        "unicode": ("X-Bad", "\u2603"),
        "bytes": (b"X-Bad", b"a"),
        "number": ("X-Bad", 1),
    }[query(environ)["what"]]
    start_response("200 OK", PLAIN + [bad])
    return [b"never sent"]


@route
def bad_status(environ, start_response):
    bad = {"short": "20 OK", "text": "OK", "newline": "200 OK\r\nX-Injected: yes", "number": 200, "bytes": b"200 OK"}
    start_response(bad[query(environ)["what"]], PLAIN)
    return [b"never sent"]


@route
def hop_by_hop(environ, start_response):
    start_response("200 OK", PLAIN + [("Transfer-Encoding", "chunked"), ("Connection", "keep-alive")])
    return [b"the application must not say this"]


@route
def die(environ, start_response):
    """Takes the whole process along."""
    how = query(environ).get("how", "segv")
    if how == "exit":
        os._exit(7)
    os.kill(os.getpid(), {"segv": 11, "kill": 9}[how])
    wait_for("/nonexistent")


@route
def system_exit(environ, start_response):
    sys.exit("leaving " + query(environ)["token"])


# Files


class Readable:
    """A file-like object without a descriptor."""

    def __init__(self, environ, data):
        self.environ, self.file = environ, io.BytesIO(data)

    def read(self, size=-1):
        return self.file.read(size)

    def close(self):
        record(self.environ, "closed")


class RecordedFile(io.FileIO):
    """A real file that writes down its close()."""

    def close(self):
        if not self.closed and hasattr(self, "environ"):
            record(self.environ, "closed")
        super().close()


@route
def file(environ, start_response):
    how = query(environ)
    source = RecordedFile(how["file"])
    source.environ = environ
    source.seek(int(how.get("from", 0)))
    start_response("200 OK", PLAIN + ([("Content-Length", how["length"])] if "length" in how else []))
    wrapper = environ["wsgi.file_wrapper"]
    return wrapper(source, int(how["block"])) if "block" in how else wrapper(source)


@route
def buffered_file(environ, start_response):
    """Python has read ahead of the descriptor's own offset."""
    source = open(query(environ)["file"], "rb")
    source.readline()
    start_response("200 OK", PLAIN)
    return environ["wsgi.file_wrapper"](source)


@route
def file_like(environ, start_response):
    start_response("200 OK", PLAIN)
    return environ["wsgi.file_wrapper"](Readable(environ, b"0123456789" * 10000), 1000)


@route
def pipe(environ, start_response):
    readable, writable = os.pipe()
    os.write(writable, b"through a pipe")
    os.close(writable)
    start_response("200 OK", PLAIN)
    return environ["wsgi.file_wrapper"](os.fdopen(readable, "rb"))


@route
def file_iterated(environ, start_response):
    """What a middleware does that changes a response: it iterates."""
    start_response("200 OK", PLAIN)
    return [b"".join(environ["wsgi.file_wrapper"](open(query(environ)["file"], "rb"), 8192))]


@route
def file_written(environ, start_response):
    """A part by write(), the rest a file."""
    start_response("200 OK", PLAIN)(b"before ")
    return environ["wsgi.file_wrapper"](open(query(environ)["file"], "rb"))
