"""An application for rules: it answers every path, says what it was called with, and does what the query asks."""

import json
import os
import time
from urllib.parse import parse_qs

import uwsgi

SHOWN = ("REQUEST_METHOD", "REQUEST_URI", "PATH_INFO", "QUERY_STRING", "SCRIPT_NAME", "REMOTE_USER", "REMOTE_ADDR",
         "DOCUMENT_ROOT", "UWSGI_HOME", "UWSGI_SCHEME", "MADE", "wsgi.url_scheme")


def signalled(number):
    with open(os.environ["SIGNALLED"], "a", encoding="utf-8") as file:
        file.write(f"{number}\n")


if "SIGNALLED" in os.environ:
    uwsgi.register_signal(17, "workers", signalled)


def application(environ, start_response):
    how = {name: values[-1] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    if "sleep" in how:
        time.sleep(float(how["sleep"]))
    if "raise" in how:
        raise RuntimeError("as asked")
    headers = [("Content-Type", "text/plain"), ("X-App", "1"), ("X-Twice", "a"), ("X-Twice", "b")]
    shown = {name: environ[name] for name in SHOWN if name in environ}
    body = how["body"].encode() if "body" in how else json.dumps(shown).encode()
    if "repeat" in how:
        body *= int(how["repeat"])
    if "length" in how:
        headers.append(("Content-Length", str(len(body))))
    if "header" in how:
        headers.append(tuple(how["header"].split(":")))
    if "csp" in how:
        headers.append(("Content-Security-Policy", how["csp"]))
    start_response(how.get("status", "200") + " Said", headers)
    if "pieces" in how:
        middle = len(body) // 2
        return iter([body[:middle], b"", body[middle:]])
    if "file" in how:
        return environ["wsgi.file_wrapper"](open(how["file"], "rb"))
    return [body]
