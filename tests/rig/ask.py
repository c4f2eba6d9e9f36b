"""Asking a server through its control socket."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from rig.waiting import DEADLINE

Reply = dict[str, Any]


def ask(control: Path | str, **request: object) -> tuple[Reply, list[str]]:
    """Sends one request; returns the reply that ends the answer, and what was said before it."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE)
        client.connect(str(control))
        client.sendall(json.dumps(request).encode() + b"\n")
        said: list[str] = []
        with client.makefile("rb") as lines:
            for line in lines:
                reply = json.loads(line)
                if "progress" not in reply:
                    return reply, said
                said.append(reply["progress"])
    raise AssertionError(f"the server hung up on {request} after {said}")


def memory(control: Path | str, worker: int, what: str) -> Reply:
    """A report of a worker's memory; a failure of the server's is one of the test."""
    reply, _ = ask(control, **{"do": "memory", "worker": worker, "what": what})
    assert "done" in reply, reply
    return reply["done"]["memory"]


def row(report: Reply, name: str) -> Reply:
    """The row whose name contains this."""
    found = [row for row in report["rows"] if name in row["name"]]
    assert found, f"{name!r} is not in {[row['name'] for row in report['rows']]}"
    return found[0]
