"""The environment of an application, and what it keeps on disk: made once under `target/applications`, by uv."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from applications.table import Application

TARGET = Path(__file__).resolve().parent.parent.parent / "target" / "applications"
# Not what a client does: a change of it prepares nothing again.
NOT_OF_THE_STATE = {"client.py", "nginx.conf", "uwsgi.ini"}


@dataclass(frozen=True)
class Installed:
    """An application that is installed and prepared."""

    env: Path
    # What it keeps on disk before anybody has used it. Each server gets a copy.
    state: Path

    def variables(self, application: Application, root: Path) -> dict[str, str]:
        """What its files refer to."""
        return {
            "ROOT": str(root),
            "ENV": str(self.env),
            # Sets have one order.
            "PYTHONHASHSEED": "0",
            "HERE": str(application.directory),
            "PATH": f"{self.env / 'bin'}:{os.environ['PATH']}",
            **application.env,
        }

    def version(self, application: Application) -> str:
        """The version of what was installed."""
        asked = f"from importlib.metadata import version; print(version({application.package!r}))"
        return _run([str(self.env / "bin" / "python"), "-c", asked], dict(os.environ)).strip()


def install(application: Application) -> Installed:
    """Makes the environment and the state, when they are not there or their files have changed."""
    place = TARGET / application.name
    installed = Installed(place / "env", place / "state")
    with _locked(TARGET / f"{application.name}.lock"):
        wanted = _digest(application)
        stamp = place / "made-from"
        if stamp.exists() and stamp.read_text() == wanted:
            return installed
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        # A busy network costs time, and not the test.
        patience = {"UV_PYTHON_DOWNLOADS": "never", "UV_HTTP_TIMEOUT": "120", "UV_HTTP_RETRIES": "8"}
        environ = {**os.environ, **patience, "UV_CACHE_DIR": str(TARGET / "uv-cache"), "UV_LINK_MODE": "hardlink"}
        uv = [sys.executable, "-m", "uv"]
        _run([*uv, "venv", "--quiet", "--python", sys.executable, str(installed.env)], environ)
        requirements = str(application.directory / "requirements.txt")
        python = str(installed.env / "bin" / "python")
        _run([*uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", python, "-r", requirements], environ)
        installed.state.mkdir()
        prepare = ["bash", "-euo", "pipefail", str(application.directory / "prepare")]
        _run(prepare, {**os.environ, **installed.variables(application, installed.state)}, cwd=installed.state)
        stamp.write_text(wanted)
    return installed


def _digest(application: Application) -> str:
    files = sorted(p for p in application.directory.rglob("*") if p.is_file() and p.name not in NOT_OF_THE_STATE)
    parts = [sys.version, sys.base_prefix, str(TARGET)] + [f"{p} {p.read_text()}" for p in files if p.suffix != ".pyc"]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _run(command: list[str], env: dict[str, str], cwd: Path | None = None) -> str:
    done = subprocess.run(
        command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout[-6000:]}"
    return done.stdout


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
