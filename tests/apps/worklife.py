"""An application that shows its worker: process and thread, memory, requests that never end."""

import os
import threading
import time
from urllib.parse import parse_qs

kept = []


def stuck_here(path):
    """Goes on until the file is there; a minute bounds a failed test."""
    end = time.monotonic() + 60
    while not os.path.exists(path) and time.monotonic() < end:
        time.sleep(0.01)


def application(environ, start_response):
    query = {name: values[-1] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    if "grow" in query:
        # Written to, so that it is resident.
        kept.append(bytearray(os.urandom(1)) * (int(query["grow"]) << 20))
    if "started" in query:
        with open(query["started"], "a") as file:
            file.write(f"{os.getpid()} {threading.get_native_id()}\n")
    if "early" in query:
        start_response("200 OK", [])(b"begun")
        stuck_here(query["until"])
        return []
    if "until" in query:
        stuck_here(query["until"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
