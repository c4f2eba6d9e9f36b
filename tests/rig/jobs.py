"""A server of `apps/jobs.py` with a spooler: what was queued, and what its jobs have written down."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from rig import http
from rig.addresses import tcp
from rig.server import Server, Servers
from rig.waiting import DEADLINE, until

PREFIX = "uwsgi_spoolfile_on_"


class Record:
    """The file that jobs write to: one line for each beginning and each end."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def lines(self, word: str) -> list[list[str]]:
        """The words after `word` of each whole line that begins with it."""
        text = self.path.read_text() if self.path.exists() else ""
        whole = text[: text.rfind("\n") + 1].splitlines()
        return [line.split()[1:] for line in whole if line.split()[0] == word]

    def begun(self) -> list[int]:
        """Numbers of the jobs that have begun, in order."""
        return [int(words[0]) for words in self.lines("begin")]

    def ended(self) -> list[int]:
        """Numbers of the jobs that were done, in order."""
        return [int(words[0]) for words in self.lines("end")]

    def pids(self) -> Counter[int]:
        """How many jobs each process has begun."""
        return Counter(int(words[1]) for words in self.lines("begin"))


class Spooling:
    """A server with its directory of jobs."""

    def __init__(self, server: Server, address: str, directory: Path, record: Record) -> None:
        self.server, self.address, self.directory, self.record = server, address, directory, record

    def post(self, target: str, **options: object) -> str:
        """Asks the application for something."""
        body = json.dumps(options).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        answer = http.request(self.address, "POST", target, headers, body)
        assert answer.status == 200, f"{answer.status} {answer.body!r}\n{self.server.log()}"
        return answer.body.decode()

    def queue(self, first: int, last: int | None = None, **options: object) -> str:
        """Queues numbered jobs; returns the last one's file."""
        return self.post("/run", first=first, last=last or first, **options)

    def files(self) -> list[str]:
        """The jobs that lie in the directory, those of priorities too."""
        return [path.name for path in self.directory.rglob(f"{PREFIX}*") if path.parent.name != ".bad"]

    def wait_ended(self, *numbers: int, deadline: float = DEADLINE) -> None:
        """Waits until these jobs are done and no job is left."""
        until(
            lambda: not self.files() and set(numbers) <= set(self.record.ended()),
            f"jobs {numbers} done and gone",
            deadline,
            context=lambda: f"{self.files()}\n{self.server.log()}",
        )

    def wait_begun(self, number: int, times: int = 1) -> None:
        """Waits until a job has begun so many times."""
        until(lambda: self.record.begun().count(number) >= times, f"job {number} has begun", context=self.server.log)

    def spoolers(self) -> list[dict]:
        """The spoolers as the stats show them."""
        return self.server.stats()["spoolers"]

    def a_spooler(self) -> int:
        """The process id of the first spooler, once it has one."""
        return until(lambda: self.spoolers()[0]["pid"], "a spooler runs", context=self.server.log)


def spooling(serve: Servers, place: Path, *options: object, spooler: str = "--spooler", app: str = "jobs.py") -> Spooling:
    """Starts a server whose jobs lie in `place`."""
    address, stats_at = tcp(), tcp()
    directory, record = place / "jobs", Record(place / "record")
    server = serve(
        "--master", "--http-socket", address, "--wsgi-file", app, "--callable", "app", "--stats", stats_at,
        spooler, directory, *options, env={"JOBS_RECORD": str(record.path)},
    )  # fmt: skip
    return Spooling(server, address, directory, record)
