"""Servers of both programs, for tests of what rwsgi does as uWSGI does it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rig.server import Program, Servers

BOTH = ["rwsgi", "uwsgi"]


def servers(name: str, program: Program, venv_bin: Path, directory: Path) -> Servers:
    """Starts servers of the program under test, or of the uWSGI in the tests' environment."""
    if name == "rwsgi":
        return Servers(program, directory)
    if program.is_uwsgi or not (venv_bin / "uwsgi").exists():
        pytest.skip("there is no other uWSGI to compare with")
    return Servers(Program(str(venv_bin / "uwsgi")), directory)
