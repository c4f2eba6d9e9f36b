"""Queues jobs for the spooler: `/queue?count=N`, each of which does nothing, and `/touch?path=P`, which notes its time."""

import time
from urllib.parse import parse_qsl

import uwsgi


def spooler(job):
    path = job.get(b"touch")
    if path:
        with open(path, "w") as file:
            file.write(str(time.time()))
    return uwsgi.SPOOL_OK


uwsgi.spooler = spooler


def application(environ, start_response):
    query = dict(parse_qsl(environ["QUERY_STRING"]))
    for number in range(int(query.get("count", 0))):
        uwsgi.spool({b"number": str(number).encode(), b"payload": b"x" * 200})
    if "path" in query:
        uwsgi.spool({b"touch": query["path"].encode()})
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]
