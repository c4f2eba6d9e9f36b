"""The server as another user: www-data, with the system's own Python where the tests' one is locked away."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from rig.server import Program

SYSTEM_PYTHON = "/usr/bin/python3"
SCRIPT = "#!{python}\nimport sys\nfrom rwsgi import main\nsys.exit(main())\n"


def www_data() -> pwd.struct_passwd:
    """The user that web servers run as; skips where nobody can become it."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    try:
        return pwd.getpwnam("www-data")
    except KeyError:
        pytest.skip("there is no www-data")


def place() -> Path:
    """A new directory that everybody may enter, as those of a system; the caller removes it."""
    directory = Path(tempfile.mkdtemp(prefix="rwsgi-tests-", dir="/tmp"))
    directory.chmod(0o755)
    return directory


def runs_as(user: str, program: str) -> bool:
    """Whether this user can run this server."""
    try:
        done = subprocess.run(
            [program, "--version"], user=user, group=user, extra_groups=[], cwd="/", capture_output=True, check=False
        )
    except OSError:
        return False
    return done.returncode == 0


def install(program: Program, environment: Path, *packages: str) -> Program:
    """Makes a virtual environment with these packages of the tests' own, and gives the server that www-data can run: as it
    is, or as a copy of its package in there."""
    if not os.path.exists(SYSTEM_PYTHON):
        pytest.skip(f"there is no {SYSTEM_PYTHON}")
    subprocess.run([SYSTEM_PYTHON, "-m", "venv", "--without-pip", environment], check=True)
    (site,) = environment.glob("lib/python*/site-packages")
    for name in packages:
        _copy(name, site)
    if runs_as("www-data", program.path):
        return program
    if Path(program.path).parent == Path(sys.prefix) / "bin" and _copy("rwsgi", site):
        script = environment / "bin" / "rwsgi"
        script.write_text(SCRIPT.format(python=environment / "bin" / "python"))
        script.chmod(0o755)
        if runs_as("www-data", str(script)):
            return Program(str(script))
    pytest.skip(f"www-data cannot run {program.path}, nor can {SYSTEM_PYTHON}: the tests' Python is of another version")


def _copy(name: str, site: Path) -> bool:
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        return False
    origin = Path(found.origin)
    if origin.name == "__init__.py":
        shutil.copytree(origin.parent, site / name)
    else:
        shutil.copy(origin, site)
    return True
