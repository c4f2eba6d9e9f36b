"""Queues jobs for the spooler, each of which does nothing: `/queue?count=N`, or by several threads at once:
`/queue?count=N&threads=T`. `/touch?path=P` queues one that notes its time."""

import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qsl

import uwsgi


def spooler(job):
    path = job.get(b"touch")
    if path:
        with open(path, "w") as file:
            file.write(str(time.time()))
    return uwsgi.SPOOL_OK


uwsgi.spooler = spooler


def queue(number):
    uwsgi.spool({b"number": str(number).encode(), b"payload": b"x" * 200})


def application(environ, start_response):
    query = dict(parse_qsl(environ["QUERY_STRING"]))
    numbers = range(int(query.get("count", 0)))
    if "threads" in query:
        with ThreadPoolExecutor(int(query["threads"])) as pool:
            list(pool.map(queue, numbers))
    else:
        for number in numbers:
            queue(number)
    if "path" in query:
        uwsgi.spool({b"touch": query["path"].encode()})
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]
