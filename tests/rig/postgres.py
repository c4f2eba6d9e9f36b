"""A PostgreSQL of the test's own, by the system's programs."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from rig.addresses import free_port, listening
from rig.waiting import until


def _programs() -> Path:
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda place: float(place.parent.name))
    found = next((place for place in reversed(places) if (place / "initdb").exists()), None)
    if found is None:
        pytest.skip("there is no PostgreSQL: apt-get install postgresql (tests/run does that as root)")
    return found


class Postgres:
    """Listens on a port of 127.0.0.1. It refuses to be root's: there it runs as the user of Debian's package."""

    def __init__(self) -> None:
        programs = _programs()
        self.directory = Path(tempfile.mkdtemp(prefix="rwsgi-tests-pg-", dir="/tmp"))
        self.port = free_port()
        identity = {}
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(self.directory, user.pw_uid, user.pw_gid)
            identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self.log_path = self.directory / "log"
        with self.log_path.open("wb") as log:
            how = {"cwd": "/", "stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, **identity}
            data = self.directory / "data"
            made = subprocess.run([programs / "initdb", "--no-sync", "--no-locale", "-A", "trust", "-U", "test", "-D", data], **how)
            assert made.returncode == 0, self.log()
            self.process = subprocess.Popen(
                [programs / "postgres", "-D", data, "-F", "-k", self.directory, "-h", "127.0.0.1", "-p", str(self.port)], **how
            )
        until(lambda: listening(f"127.0.0.1:{self.port}"), "PostgreSQL listens", context=self.log)

    @property
    def dsn(self) -> str:
        """How a client names it."""
        return f"host=127.0.0.1 port={self.port} user=test dbname=postgres"

    def log(self) -> str:
        """What it printed."""
        return self.log_path.read_text(errors="replace")

    def stop(self) -> None:
        """Ends it, and its directory."""
        # It does not wait for clients then.
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(30)
        finally:
            self.process.kill()
            shutil.rmtree(self.directory, ignore_errors=True)
