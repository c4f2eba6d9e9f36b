"""A client of the control socket, and `rwsgi ctl`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any, Iterator

from rig.server import Program, environment
from rig.waiting import DEADLINE


class Control:
    """A connection to a control socket."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(DEADLINE)
        self.socket.connect(str(path))
        self.lines = self.socket.makefile("rb")

    def __enter__(self) -> Control:
        return self

    def __exit__(self, *_: object) -> None:
        self.lines.close()
        self.socket.close()

    def send(self, line: bytes) -> None:
        """Sends bytes as they are."""
        self.socket.sendall(line)

    def replies(self) -> Iterator[dict[str, Any]]:
        """What the server says, until it hangs up."""
        for line in self.lines:
            yield json.loads(line)

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Asks, and returns what ends the answer: `{"done": …}` or `{"failed": …}`."""
        self.send(json.dumps({"do": do, **arguments}).encode() + b"\n")
        return next(reply for reply in self.replies() if "progress" not in reply)


def ask(path: Path, do: str, **arguments: Any) -> dict[str, Any]:
    """One request on a connection of its own."""
    with Control(path) as control:
        return control.ask(do, **arguments)


def ctl(program: Program, *words: object, env: dict[str, str] | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs `rwsgi ctl`."""
    command = [program.path, "ctl", *map(str, words)]
    return subprocess.run(
        command,
        env=environment("ctl", env),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
        cwd=options.pop("cwd", os.sep),
        **options,
    )
