"""The application of a chaos run. It writes down which request each process begins, and which job a spooler runs: the
oracle compares that with what the clients saw and with what the server counted."""

import hashlib
import os
import time

import uwsgi

VERSION = "0"
# Inherited by every fork: with O_APPEND each line is written whole.
RECORD = os.open(os.environ["CHAOS_RECORD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
# What /eat keeps.
EATEN = []


def note(*words):
    os.write(RECORD, (" ".join(str(word) for word in words) + "\n").encode())


def run_job(job):
    number = job[b"number"].decode()
    note("job-begin", number, os.getpid())
    time.sleep(0.002)
    note("job-end", number, os.getpid())
    return uwsgi.SPOOL_OK


uwsgi.spooler = run_job
uwsgi.mule_msg_hook = lambda message: note("message", message.decode())


def hello(number, environ):
    return [f"{number}\n".encode()]


def upload(number, environ):
    digest, length, read = hashlib.sha256(), 0, environ["wsgi.input"].read
    while piece := read(65536):
        digest.update(piece)
        length += len(piece)
    return [f"{number} {length} {digest.hexdigest()}".encode()]


def pattern(number, size):
    """What a download of this request must be."""
    word = hashlib.sha256(number.encode()).digest()
    return (word * (size // len(word) + 1))[:size]


def download(number, environ):
    return [pattern(number, int(environ["QUERY_STRING"]))]


def stream(number, environ):
    """The same in pieces, with a length that nobody is told."""
    body = pattern(number, int(environ["QUERY_STRING"]))
    return (body[start : start + 3000] for start in range(0, len(body), 3000))


def job(number, environ):
    uwsgi.spool({b"number": number.encode()})
    note("queued", number)
    return [f"{number}\n".encode()]


def mule(number, environ):
    uwsgi.mule_msg(number.encode())
    return [f"{number}\n".encode()]


def hang(number, environ):
    time.sleep(600)
    return [b"late"]


def eat(number, environ):
    EATEN.append(b"x" * (int(environ["QUERY_STRING"]) << 20))
    return [f"{number}\n".encode()]


ROUTES = {"/" + route.__name__: route for route in (hello, upload, download, stream, job, mule, hang, eat)}


def application(environ, start_response):
    number = environ["HTTP_X_ID"]
    note("begin", number, os.getpid())
    try:
        body = ROUTES[environ["PATH_INFO"]](number, environ)
    except OSError as error:
        # A disk that is full: the client is told, and nothing is broken.
        body, status = [str(error).encode()], "507 Insufficient Storage"
    else:
        status = "200 OK"
    headers = [("X-Id", number), ("X-Version", VERSION)]
    if isinstance(body, list):
        headers.append(("Content-Length", str(len(body[0]))))
    start_response(status, headers)
    return body
