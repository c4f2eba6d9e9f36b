"""Many servers in one process: each answers with a document of its own, says nothing, or breaks off."""

from __future__ import annotations

import json
import socket
import threading
import time


def document(name: str, requests: int = 0) -> dict:
    """A small stats document as rwsgi sends it."""
    core = {"id": 0, "in_request": 0}
    worker = {"id": 1, "pid": 7, "requests": requests, "rss": 1 << 20, "busy_time": requests * 1000, "cores": [core, core]}
    worker["responses"] = {"2xx": requests, "4xx": 0, "5xx": 0}
    return {
        "version": "1",
        "server": "rwsgi",
        "hostname": name,
        "pid": 5,
        "started_at": 1,
        "now": time.time_ns() // 1000,
        "generation": 1,
        "workers": [worker],
    }


class Pretended:
    """Every loopback address at one port. `answers` says what an address does: a document, `silent` or `truncated`."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("0.0.0.0", 0), backlog=1024)
        self.port = self.listener.getsockname()[1]
        self.answers: dict[str, str] = {}
        self.asked: dict[str, int] = {}
        self.held: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def at(self, host: str) -> str:
        """The address of the server at a loopback address."""
        return f"{host}:{self.port}"

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            host = connection.getsockname()[0]
            self.asked[host] = self.asked.get(host, 0) + 1
            kind = self.answers.get(host, "whole")
            if kind == "silent":
                self.held.append(connection)
                continue
            text = json.dumps(document(host, self.asked[host] * 10)).encode()
            with connection:
                connection.sendall(text[:50] if kind == "truncated" else text)

    def stop(self) -> None:
        """Ends all of them."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.held:
            connection.close()
