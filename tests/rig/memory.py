"""Reports of a worker's memory, and what a server says on the way to an answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rig.control import Control

Reply = dict[str, Any]


def ask(control: Path, **request: object) -> tuple[Reply, list[str]]:
    """Sends one request; returns the reply that ends the answer, and what was said before it."""
    said: list[str] = []
    with Control(control) as connection:
        connection.send(json.dumps(request).encode() + b"\n")
        for reply in connection.replies():
            if "progress" not in reply:
                return reply, said
            said.append(reply["progress"])
    raise AssertionError(f"the server hung up on {request} after {said}")


def memory(control: Path, worker: int, what: str) -> Reply:
    """A report of a worker's memory; a failure of the server's is one of the test."""
    reply, _ = ask(control, **{"do": "memory", "worker": worker, "what": what})
    assert "done" in reply, reply
    return reply["done"]["memory"]


def row(report: Reply, name: str) -> Reply:
    """The row whose name contains this."""
    found = [row for row in report["rows"] if name in row["name"]]
    assert found, f"{name!r} is not in {[row['name'] for row in report['rows']]}"
    return found[0]
