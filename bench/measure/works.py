"""The works, one row each: what is asked, how much of it at once, and of what kind of server. No code runs here."""

from __future__ import annotations

from dataclasses import dataclass

from measure.servers import Server, Setting


@dataclass(frozen=True)
class Work:
    """One kind of load."""

    name: str
    title: str
    path: str = "/"
    module: str = "hello"
    processes: int = 1
    threads: int = 1
    connections: int = 64
    # A new connection for every request.
    close: bool = False
    # Bytes of body in every request.
    upload: int = 0
    # Bytes of body in every answer, where that is known; also counts answers by their bytes, when they are long.
    size: int | None = 12
    # A second page that so many further connections ask for, whose latency is not counted.
    beside: tuple[str, int] | None = None
    logged: bool = False
    # Which figure its chart shows.
    pictured: str = "cpu"
    # The smallest run that it is part of: smoke, quick or full.
    since: str = "full"

    @property
    def setting(self) -> Setting:
        """What the server is to be."""
        connections = self.connections + (self.beside[1] if self.beside else 0)
        return Setting(self.module, self.processes, self.threads, connections, self.logged)

    @property
    def by_bytes(self) -> bool:
        """Whether answers are so long that the ones begun at the end of a run would falsify a count of whole ones."""
        return (self.size or 0) >= 1_000_000

    def suits(self, server: Server) -> bool:
        """Whether a server can do it."""
        if not server.runs_python:
            plain = self.path == "/" and self.module == "hello" and self.processes == self.threads == 1
            return plain and not (self.close or self.beside or self.logged)
        return server.can(self.setting)


FAST, SLOW = 61, 3

WORKS = [
    Work("hello", "hello, keep-alive, 1 process, 64 connections", since="smoke"),
    Work("hello-1000", "hello, keep-alive, 1 process, 1,000 connections", connections=1000),
    Work("hello-2", "hello, keep-alive, 2 processes, 64 connections", processes=2),
    Work("hello-2-1000", "hello, keep-alive, 2 processes, 1,000 connections", processes=2, connections=1000),
    Work("hello-close", "hello, a connection for each request, 1 process", close=True, since="quick"),
    Work("hello-close-2", "hello, a connection for each request, 2 processes", close=True, processes=2),
    Work("hello-logged", "hello, keep-alive, 1 process, access log on", logged=True),
    Work("10kB", "10 kB response, 1 process", path="/10kB", size=10_000),
    Work("1MB", "1 MB response, 1 process, 16 connections", path="/1MB", size=1_000_000, connections=16, since="quick"),
    Work("file", "100 MB file through file_wrapper, 1 process, 4 connections", path="/file", size=100_000_000, connections=4),
    Work("upload-1kB", "1 kB upload, 1 process", path="/upload", upload=1_000, size=4),
    Work(
        "upload-1MB", "1 MB upload, 1 process, 16 connections", path="/upload", upload=1_000_000, size=7, connections=16,
        since="quick",
    ),
    Work("flask", "Flask page, 1 process", module="flask_page", size=None, since="quick"),
    Work("flask-2", "Flask page, 2 processes", module="flask_page", size=None, processes=2),
    Work("django", "Django page, 1 process", module="django_page", size=None),
    Work("django-2", "Django page, 2 processes", module="django_page", size=None, processes=2),
    Work("wait", "10 ms of waiting, 1 process of 8 threads", path="/10ms", threads=8, since="quick"),
    Work("stream", "a stream of 1,000 chunks of 100 bytes, 1 process", path="/stream", size=100_000, since="quick"),
    Work(
        "mixed", "mixed: 61 connections ask for a fast page, 3 for one of 200 ms, 2 processes of 2 threads",
        processes=2, threads=2, connections=FAST, beside=("/200ms", SLOW), pictured="p99", since="quick",
    ),
    Work(
        "mixed-without", "mixed without its slow pages, 2 processes of 2 threads", processes=2, threads=2, connections=FAST,
        pictured="p99", since="quick",
    ),
]  # fmt: skip
