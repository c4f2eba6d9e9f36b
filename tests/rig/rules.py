"""Sites with rules for requests and responses, and what tests ask of them."""

from __future__ import annotations

import base64
import json
import subprocess

import pytest

from rig import http
from rig.server import Program
from rig.site import every_kind
from rig.waiting import until


def skip_without(program: Program) -> None:
    """A uWSGI without PCRE has no rules."""
    if program.is_uwsgi:
        options = subprocess.run([program.path, "--help"], capture_output=True, text=True, check=True).stdout
        if "--route-run" not in options:
            pytest.skip("this uWSGI was built without PCRE")


def starter(serve):
    """Starts the application with rules: `start("--route-run", "log:x")` is its site on http-socket."""

    def start(*options: object, kind: str = "http-socket", env: dict[str, str] | None = None):
        return every_kind(serve, "--wsgi-file", "routed.py", *options, env=env)[kind]

    return start


def basic(pair: str) -> dict[str, str]:
    """The header with a name and a password."""
    return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def seen(answer: http.Response) -> dict[str, str]:
    """What the application was called with."""
    assert answer.status == 200, answer
    return json.loads(answer.body)


def told(site, last: str) -> str:
    """The log, once the line about the last request is in it."""
    until(lambda: last in site.server.log(), f"{last} in the log", context=site.server.log)
    return site.server.log()
