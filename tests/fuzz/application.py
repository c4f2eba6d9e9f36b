"""Answers each request with what it saw of it, and writes that to the file that FUZZ_RECORD names.

The first word of the target changes how the answer is made, never what it says.
"""

import hashlib
import json
import os
import tempfile

LARGE = 70_000
# The client imports this file too, for what a request is expected to be seen as.
RECORD = os.open(os.environ["FUZZ_RECORD"], os.O_WRONLY | os.O_APPEND) if "FUZZ_RECORD" in os.environ else None


def digest(data):
    """A short fingerprint of bytes."""
    return hashlib.sha1(data).hexdigest()[:16]


def saw(method, uri, headers, body):
    """The line that tells of a request. `headers` are those of the environ; a body that nobody read is None."""
    said = sorted((name, value) for name, value in headers if name.startswith("HTTP_") or name == "CONTENT_TYPE")
    parts = [method, uri, -1 if body is None else len(body), digest(body or b""), digest(repr(said).encode())]
    return json.dumps(parts)


def application(environ, start_response):
    uri = environ.get("REQUEST_URI", "")
    body = None if uri.startswith("/unread") else environ["wsgi.input"].read()
    texts = [(name, value) for name, value in environ.items() if isinstance(value, str)]
    line = saw(environ.get("REQUEST_METHOD", ""), uri, texts, body)
    os.write(RECORD, line.encode() + b"\n")
    said, headers = line.encode(), [("X-Saw", line)]
    if uri.startswith("/empty"):
        start_response("204 No Content", headers)
        return []
    start_response("200 OK", headers)
    if uri.startswith("/chunks"):
        return iter([said[:7], b"", said[7:]])
    if uri.startswith("/large"):
        return [said.ljust(LARGE)]
    if uri.startswith("/file"):
        file = tempfile.TemporaryFile()
        file.write(said.ljust(LARGE))
        file.seek(0)
        return environ["wsgi.file_wrapper"](file, 8192)
    return [said]
