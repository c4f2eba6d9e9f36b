"""A debugger's side of the Debug Adapter Protocol, as far as stopping at a line needs it."""

from __future__ import annotations

import json
import socket
from typing import Any

from rig.addresses import connect


class Debugger:
    """Connected to what listens for debuggers at an address."""

    def __init__(self, address: str) -> None:
        self.socket: socket.socket = connect(address)
        self.stream = self.socket.makefile("rb")
        self.number = 0
        self.seen: list[dict[str, Any]] = []

    def close(self) -> None:
        """Goes away; what is debugged goes on."""
        self.stream.close()
        self.socket.close()

    def send(self, command: str, **arguments: Any) -> int:
        """Sends a request; returns its number."""
        self.number += 1
        message = {"seq": self.number, "type": "request", "command": command, "arguments": arguments}
        body = json.dumps(message).encode()
        self.socket.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        return self.number

    def _read(self) -> dict[str, Any]:
        length = 0
        while line := self.stream.readline().strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        assert length, f"the connection ended after {self.seen}"
        return json.loads(self.stream.read(length))

    def wait_event(self, name: str) -> dict[str, Any]:
        """The body of the next event of this name, also of one that came while something else was waited for."""
        while True:
            for message in self.seen:
                if message.get("event") == name:
                    self.seen.remove(message)
                    return message.get("body") or {}
            self.seen.append(self._read())

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """What is answered to a request."""
        number = self.send(command, **arguments)
        while True:
            message = self._read()
            if message.get("request_seq") == number:
                assert message["success"], message
                return message.get("body") or {}
            self.seen.append(message)

    def break_at(self, path: str, line: int) -> None:
        """Attaches, and has whatever comes to this line stop there."""
        self.ask("initialize", adapterID="test", pathFormat="path")
        attached = self.send("attach", justMyCode=False)
        self.wait_event("initialized")
        self.ask("setBreakpoints", source={"path": path}, breakpoints=[{"line": line}])
        self.ask("configurationDone")
        assert attached

    def evaluated(self, expression: str) -> tuple[int, str]:
        """Waits for a stop; returns which thread has stopped and what the expression comes to there."""
        thread = self.wait_event("stopped")["threadId"]
        frame = self.ask("stackTrace", threadId=thread)["stackFrames"][0]
        return thread, self.ask("evaluate", expression=expression, frameId=frame["id"])["result"]
