"""Says which trace it was told of, and does what makes a trace interesting."""

import json
import os
import signal
import sys
import time


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/raise":
        raise ValueError("no, see https://user:secret@example.org/")
    if path == "/die":
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)
    if path == "/hang":
        time.sleep(60)
    if path == "/loud":
        sys.stderr.write("x" * 60_000 + "\n")
        sys.stderr.flush()
    if path == "/say":
        trace = environ["HTTP_TRACEPARENT"].split("-")[1]
        sys.stderr.write(f"WARNING of the application trace_id={trace}\n")
        sys.stderr.flush()
    if path.startswith("/named/"):
        environ["rwsgi.route"] = "named.one"
    told = {name: environ.get(f"HTTP_{name.upper()}") for name in ("traceparent", "tracestate")}
    if path == "/options":
        import uwsgi

        told = {name: str(value) for name, value in uwsgi.opt.items()}
    body = json.dumps(told).encode()
    start_response("404 Not Found" if path == "/missing" else "200 OK", [("Content-Length", str(len(body)))])
    return [body]
