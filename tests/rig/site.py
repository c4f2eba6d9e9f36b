"""One server behind one of its sockets, asked the same way whatever it speaks."""

from __future__ import annotations

from pathlib import Path

from rig import http, uwsgi
from rig.addresses import tcp
from rig.server import Server, Servers
from rig.waiting import until

KINDS = ("http", "http-socket", "socket")


class Site:
    """A server on one kind of socket."""

    def __init__(self, server: Server, kind: str, address: str) -> None:
        self.server, self.kind, self.address = server, kind, address

    def request(
        self, method: str, target: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> http.Response:
        """One request on a connection of its own."""
        return (uwsgi if self.kind == "socket" else http).request(self.address, method, target, headers, body)

    def get(self, target: str, headers: dict[str, str] | None = None) -> http.Response:
        """A GET."""
        return self.request("GET", target, headers)

    def open(self, method: str, target: str, headers: dict[str, str] | None = None, body: bytes = b"") -> http.Connection:
        """Sends a request, and leaves reading the answer to the caller. `headers` tell the length of what follows."""
        connection = http.Connection(self.address)
        if self.kind == "socket":
            connection.send(uwsgi.packet(uwsgi.variables(method, target, headers)) + body)
        else:
            connection.send(http.head(method, target, {"Connection": "close", **(headers or {})}) + body)
        return connection


def every_kind(serve: Servers, *arguments: object, env: dict[str, str] | None = None) -> dict[str, Site]:
    """One server on all three kinds of sockets."""
    addresses = {kind: tcp() for kind in KINDS}
    options = [part for kind, address in addresses.items() for part in (f"--{kind}", address)]
    if serve.program.is_uwsgi:
        # Its http router would send HTTP to the first socket of any kind.
        router = serve("--master", *options[:2], *arguments, env=env)
        server = serve("--master", *options[2:], *arguments, env=env)
        return {kind: Site(router if kind == "http" else server, kind, at) for kind, at in addresses.items()}
    server = serve("--master", *options, *arguments, env=env)
    return {kind: Site(server, kind, address) for kind, address in addresses.items()}


class Record:
    """A file in which an application writes down what it saw."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def lines(self) -> list[str]:
        """What is written so far."""
        return self.path.read_text().splitlines() if self.path.exists() else []

    def wait(self, count: int = 1) -> list[str]:
        """Waits for `count` lines."""
        until(lambda: len(self.lines()) >= count, f"{count} lines recorded", context=lambda: str(self.lines()))
        return self.lines()
