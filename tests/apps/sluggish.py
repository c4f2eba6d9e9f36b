"""Requests that take as long as a test says, each in another way."""

import ctypes
import gc
import os
import time
from urllib.parse import parse_qs

# Its functions do not let the global lock go.
HOLDING = ctypes.PyDLL(None)
HOLDING.fdopen.restype = ctypes.c_void_p
HOLDING.fread.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p)
HOLDING.fclose.argtypes = (ctypes.c_void_p,)


def wait_here(path):
    """Goes on when the file is there; a minute bounds a failed test."""
    end = time.monotonic() + 60
    while not os.path.exists(path) and time.monotonic() < end:
        time.sleep(0.01)


def hog_here(path):
    """Holds the global lock from when it has taken a first byte from the pipe until there is a second."""
    stream = HOLDING.fdopen(os.open(path, os.O_RDONLY), b"r")
    HOLDING.fread(ctypes.create_string_buffer(2), 1, 2, stream)
    HOLDING.fclose(stream)


def pieces(size):
    """Makes the next piece when the one before is with the client, or in its socket."""
    piece = b"y" * 65536
    for at in range(0, size, len(piece)):
        yield piece[: size - at]


def application(environ, start_response):
    query = {name: values[-1] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    if "started" in query:
        with open(query["started"], "w") as file:
            file.write(str(os.getpid()))
    if "until" in query:
        wait_here(query["until"])
    if "hog" in query:
        hog_here(query["hog"])
    if "keep" in query:
        environ.setdefault("kept", bytearray(int(query["keep"])))
    if "collect" in query:
        knot = []
        knot.append(knot)
        del knot
        gc.collect()
    if "raise" in query:
        raise ValueError(query["raise"])
    body = environ["wsgi.input"].read()
    if "pieces" in query:
        size = int(query["pieces"])
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(size))])
        return pieces(size)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(len(body)).encode()]
