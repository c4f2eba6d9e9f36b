"""Responses that come in many pieces, with and without pauses."""

import os
import random
import time
from urllib.parse import parse_qs

PLAIN = [("Content-Type", "text/plain")]
PAUSES = [0.0] * 40 + [0.0003, 0.0012, 0.004]

# How many there are whenever this process forks, before and after.
THREADS = []


def count_threads():
    THREADS.append(len(os.listdir("/proc/self/task")))


os.register_at_fork(before=count_threads)


def query(environ):
    return {name: values[-1] for name, values in parse_qs(environ["QUERY_STRING"]).items()}


def wait_for(path):
    """Waits until the test says go on, by making the file; a minute bounds a failed test."""
    end = time.monotonic() + 60
    while not os.path.exists(path) and time.monotonic() < end:
        time.sleep(0.005)


def pieces(seed):
    """The pieces of a body, with the pause after each, s: most are small, and most come at once."""
    chance = random.Random(seed)
    for number in range(chance.choice([3, 30, 300, 1500])):
        size = chance.choice([0, 1, 10, 100, 100, 100, 100, 300, chance.choice([300, 5_000, 16_384, 70_000])])
        piece = b"%d:" % number + chance.choice([b"x", b"\r\n", b"0"]) * size
        yield piece[:size], chance.choice(PAUSES)


def some(environ, start_response):
    how = query(environ)
    seed = int(how["seed"])
    length = [("Content-Length", str(sum(len(piece) for piece, _ in pieces(seed))))] if "length" in how else []
    write = start_response("200 OK", PLAIN + length)

    def body():
        for number, (piece, pause) in enumerate(pieces(seed)):
            if "writes" in how and number % 7 == 3:
                write(piece)
            else:
                yield piece
            if pause:
                time.sleep(pause)

    return body()


def pauses(environ, start_response):
    """Small pieces, and none after them until the test has seen these."""
    how = query(environ)
    start_response("200 OK", PLAIN)

    def body():
        for number in range(int(how["rounds"])):
            for letter in b"abcdefgh":
                yield bytes([letter])
            yield b"(%d)" % number
            wait_for(f"{how['go']}-{number}")

    return body()


def endless(environ, start_response):
    start_response("200 OK", PLAIN)

    def body():
        try:
            while True:
                yield b"x" * 10
        finally:
            with open(query(environ)["record"], "a", encoding="utf-8") as file:
                file.write("closed\n")

    return body()


class Closes:
    """Pieces, and a close() that takes as long as the test wants."""

    def __init__(self, go):
        self.go = go

    def __iter__(self):
        return iter([b"x"] * 100)

    def close(self):
        wait_for(self.go)


def closes(environ, start_response):
    start_response("200 OK", PLAIN)
    return Closes(query(environ)["go"])


def fails(environ, start_response):
    start_response("200 OK", PLAIN)
    for number in range(100):
        yield b"%d," % number
    raise ValueError("in the middle")


def forks(environ, start_response):
    """Forks with pieces that may not have been sent; the child makes more of them. Says how many threads were seen, if asked to."""
    start_response("200 OK", PLAIN)
    THREADS.clear()
    for number in range(20):
        for letter in b"abcd":
            yield bytes([letter])
        child = os.fork()
        if child == 0:
            try:
                for _ in range(50):
                    yield b"child"
            finally:
                os._exit(0)
        count_threads()
        os.waitpid(child, 0)
        yield b"%d " % number
    if "threads" in query(environ):
        yield repr(set(THREADS)).encode()


def itself(environ, start_response):
    """Sends to the socket itself between two pieces."""
    import uwsgi

    start_response("200 OK", PLAIN)
    for letter in b"abc":
        yield bytes([letter])
    os.write(uwsgi.connection_fd(), b"d")
    for letter in b"ef":
        yield bytes([letter])
    os.write(uwsgi.connection_fd(), b"g")
    yield b"h"


def application(environ, start_response):
    routes = [some, pauses, endless, closes, fails, forks, itself]
    return {"/" + route.__name__: route for route in routes}[environ["PATH_INFO"]](environ, start_response)
