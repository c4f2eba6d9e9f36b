"""An emperor, its directory of vassals, and the application that they serve."""

from __future__ import annotations

import json
import os
from pathlib import Path

from rig import http, stats
from rig.addresses import listening, tcp
from rig.server import Server, Servers
from rig.waiting import until

# Answers with what is asked for: a variable of the environment, the user, the process.
APP = """
import os
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    what = environ["PATH_INFO"].strip("/")
    if what == "user":
        text = f"{os.getuid()} {os.getgid()} {os.getgroups()}"
    elif what == "pid":
        text = str(os.getpid())
    else:
        text = os.environ.get(what or "NAME", "-")
    return [text.encode()]
"""


class Empire:
    """A directory of vassals and their emperor."""

    def __init__(self, serve: Servers, place: Path) -> None:
        self.serve, self.directory = serve, place / "vassals"
        self.directory.mkdir()
        (place / "app.py").write_text(APP)
        self.place = place
        self.stats = tcp()
        self.server: Server | None = None

    def start(self, *options: object, emperor: object = None, env: dict[str, str] | None = None) -> Server:
        """Starts the emperor, which scans every second."""
        arguments = ["--emperor", emperor or self.directory, "--emperor-freq", 1, "--emperor-stats", self.stats, *options]
        self.server = self.serve(*arguments, cwd=self.place, listens=[self.stats], env=env)
        return self.server

    def write(self, name: str, text: str, directory: Path | None = None) -> Path:
        """Writes a vassal's file at once: the emperor never sees a part of it."""
        path = (directory or self.directory) / name
        beside = self.place / f"{name}.new"
        beside.write_text(text)
        beside.rename(path)
        return path

    def rewrite(self, path: Path, text: str) -> None:
        """Replaces a file at once, with another time of its last change: the emperor sees one change."""
        beside = self.place / f"{path.name}.new"
        beside.write_text(text)
        moment = path.stat().st_mtime + 10
        os.utime(beside, (moment, moment))
        beside.rename(path)

    def ini(self, name: str, *lines: str, directory: Path | None = None) -> tuple[Path, str]:
        """Writes a vassal that serves; returns its file and its address."""
        address = tcp()
        text = "\n".join(["[uwsgi]", f"http-socket = {address}", "master = true", f"wsgi-file = {self.place}/app.py", *lines])
        return self.write(name, text + "\n", directory), address

    def document(self) -> stats.Document:
        return stats.read(self.stats)

    def vassal(self, name: str) -> stats.Document | None:
        """What the emperor says of a vassal."""
        return next((vassal for vassal in self.document()["vassals"] if vassal["id"] == name), None)

    def running(self, name: str) -> int:
        """The process of a vassal, once it has one: a signal to -1, which stands for none, is for every process there is."""
        return until(
            lambda: (vassal := self.vassal(name)) and vassal["pid"] > 0 and vassal["pid"], f"{name} runs", context=self.log
        )

    def blacklist(self) -> list[stats.Document]:
        return self.document()["blacklist"]

    def serves(self, address: str) -> None:
        """Waits until a vassal answers there; one that has just died may still close connections."""

        def answers() -> bool:
            try:
                return listening(address) and http.get(address, "/").status == 200
            except OSError:
                return False

        until(answers, f"a vassal on {address}", context=self.log)

    def wait(self, condition, what: str) -> None:
        until(condition, what, context=lambda: f"{self.log()}\n{json.dumps(self.document(), indent=1)}")

    def log(self) -> str:
        return self.server.log()


def ask(address: str, what: str = "") -> str:
    """The application's answer."""
    response = http.get(address, f"/{what}")
    assert response.status == 200
    return response.text


def try_ask(address: str, what: str = "") -> str:
    """The same of a vassal that may be about to go or to come; empty when nobody answers."""
    try:
        return ask(address, what)
    except OSError:
        return ""


def touch(path: Path) -> None:
    """Gives a file another time of its last change."""
    moment = path.stat().st_mtime + 10
    os.utime(path, (moment, moment))
