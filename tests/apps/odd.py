"""An application that does what few applications do, for what must hold all the same."""

import concurrent.futures
import gzip
import io
import os
import signal
import threading
import time
from urllib.parse import parse_qs

ROUTES = {}
PLAIN = [("Content-Type", "text/plain")]
KEPT = {}


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


def application(environ, start_response):
    return ROUTES[environ["PATH_INFO"]](environ, start_response)


@route
def quick(environ, start_response):
    start_response("200 OK", PLAIN)
    return [str(threading.get_ident()).encode()]


@route
def slow(environ, start_response):
    """Answers when the test says go on."""
    record(environ, str(threading.get_ident()))
    wait_for(query(environ)["go"])
    start_response("200 OK", PLAIN)
    return [str(threading.get_ident()).encode()]


# What an application keeps of a request that is over


@route
def keep(environ, start_response):
    """Keeps one of the things that it was given."""
    what = query(environ)["what"]
    write = start_response("200 OK", PLAIN)
    KEPT["it"] = {
        "write": write,
        "start_response": start_response,
        "read": environ["wsgi.input"].read,
        "environ": environ,
    }[what]
    return [b"kept"]


@route
def use_kept(environ, start_response):
    """Uses what an earlier request left, in the middle of this one."""
    what, kept = query(environ)["what"], KEPT["it"]
    write = start_response("200 OK", PLAIN)
    write(b"this ")
    try:
        if what == "write":
            kept(b"ANOTHER REQUEST'S ")
        elif what == "start_response":
            kept("404 Not Found", PLAIN)(b"ANOTHER REQUEST'S ")
        elif what == "read":
            write(kept())
        else:
            write(kept["wsgi.input"].read())
        said = "nothing was raised"
    except RuntimeError as error:
        said = str(error)
    write(said.encode())
    return []


# Files that are not what they seem


@route
def file(environ, start_response):
    how = query(environ)
    opened = {
        "gzip": lambda: gzip.open(how["file"], "rb"),
        "text": lambda: open(how["file"], encoding="utf-8"),
        "plain": lambda: open(how["file"], "rb"),
        "unbuffered": lambda: open(how["file"], "rb", buffering=0),
        "update": lambda: open(how["file"], "r+b"),
        "memory": lambda: io.BytesIO(open(how["file"], "rb").read()),
        "upper": lambda: Upper(how["file"]),
    }[how["kind"]]()
    start_response("200 OK", PLAIN)
    return environ["wsgi.file_wrapper"](opened)


class Upper(io.FileIO):
    """A file whose bytes are not those on the disk."""

    def read(self, size=-1):
        return super().read(size).upper()


# Iterables without end, and without manners


class Recorded:
    """An iterable that writes down each `close()`."""

    def __init__(self, environ, items, fails=False):
        self.environ, self.items, self.fails = environ, items, fails

    def __iter__(self):
        return iter(self.items)

    def close(self):
        record(self.environ, "closed")
        if self.fails:
            raise ValueError("close() failed")


def endless_parts():
    while True:
        yield b"x" * 1000


@route
def endless(environ, start_response):
    start_response(query(environ)["status"] + " Said So", PLAIN)
    return Recorded(environ, endless_parts())


@route
def fails_twice(environ, start_response):
    def parts():
        yield b"begun"
        raise KeyError("iterating failed")

    start_response("200 OK", PLAIN)
    return Recorded(environ, parts(), fails=True)


@route
def breaks_off(environ, start_response):
    start_response("200 OK", PLAIN)
    yield b"begun"
    raise ValueError("broken off")


@route
def many(environ, start_response):
    """A list of `?items=` bytes of one character each."""
    start_response("200 OK", PLAIN)
    return [b"z"] * int(query(environ)["items"])


# Children


@route
def fork(environ, start_response):
    """Leaves a child behind that has copies of whatever this process has open."""
    child = os.fork()
    if child == 0:
        wait_for(query(environ)["go"])
        os._exit(0)
    start_response("200 OK", [*PLAIN, ("X-Child", str(child))])
    return [b"forked"]


@route
def fork_and_terminate(environ, start_response):
    """Has a child, tells it to end, and says how it did."""
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    os.kill(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    start_response("200 OK", PLAIN)
    return [b"killed by %d" % os.WTERMSIG(status)]


@route
def fork_and_return(environ, start_response):
    """A child that nobody told where to end."""
    os.fork()
    start_response("200 OK", PLAIN)
    return [b"once"]


@route
def fork_and_return_late(environ, start_response):
    """The same, and the child is done first; so late that a worker would look after its links by then."""
    child = os.fork()
    if child == 0:
        time.sleep(1.5)
    else:
        os.waitpid(child, 0)
    start_response("200 OK", PLAIN)
    return [b"once"]


@route
def pid(environ, start_response):
    start_response("200 OK", PLAIN)
    return [str(os.getpid()).encode()]


@route
def thread(environ, start_response):
    """Leaves work behind: a thread that writes when the test says go on, and an executor that writes after it."""
    go, done = query(environ)["go"], query(environ)["done"]

    def write(text):
        with open(done, "a", encoding="utf-8") as file:
            file.write(text)

    def first():
        wait_for(go)
        write("thread ")

    writer = threading.Thread(target=first, name="writer")
    writer.start()
    KEPT["executor"] = concurrent.futures.ThreadPoolExecutor(1)
    KEPT["executor"].submit(lambda: (writer.join(), write("executor")))
    start_response("200 OK", PLAIN)
    return [b"left"]
