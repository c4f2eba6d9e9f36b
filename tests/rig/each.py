"""Servers of both programs, for tests of what rwsgi does as uWSGI does it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rig.server import Program, Servers

BOTH = ["rwsgi", "uwsgi"]


class OtherServers(Servers):
    """Servers of uWSGI, which a signal at the wrong moment can keep from ending: at the end they are killed."""

    def stop_all(self) -> None:
        for server in self._started:
            server.destroy()
        self._started.clear()


def with_pipe(program: Program, directory: Path, number: int) -> tuple[Program, Path]:
    """The program with a pipe at this descriptor, as a supervisor would pass it on; also the pipe's path, to write to."""
    pipe = directory / f"pipe-{number}"
    os.mkfifo(pipe)
    script = directory / Path(program.path).name
    script.write_text(f'#!/bin/sh\nexec {program.path} "$@" {number}<>{pipe}\n')
    script.chmod(0o755)
    return Program(str(script)), pipe


def servers(name: str, program: Program, venv_bin: Path, directory: Path) -> Servers:
    """Starts servers of the program under test, or of the uWSGI in the tests' environment."""
    if name == "rwsgi":
        return Servers(program, directory)
    if program.is_uwsgi or not (venv_bin / "uwsgi").exists():
        pytest.skip("there is no other uWSGI to compare with")
    return OtherServers(Program(str(venv_bin / "uwsgi")), directory)
