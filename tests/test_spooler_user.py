"""A spooler of a server that left root: the directory that root has made is where another user works."""

from __future__ import annotations

import pwd
import shutil

import pytest

from rig import http, other_user
from rig.server import Servers
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI makes a directory that only root can work in")

APP = """
import os
import uwsgi

def spooler(job):
    with open(job[b"note"], "w") as file:
        file.write(str(os.getuid()))
    return uwsgi.SPOOL_OK

uwsgi.spooler = spooler

def application(environ, start_response):
    uwsgi.spool({b"note": environ["QUERY_STRING"].encode()})
    start_response("200 OK", [])
    return [b"queued"]
"""


@pytest.fixture
def for_all():
    """A directory that everybody may enter, with an application."""
    other_user.www_data()
    directory = other_user.place()
    (directory / "noting.py").write_text(APP)
    yield directory
    shutil.rmtree(directory)


def test_another_user_s_spooler_works_in_the_directory_that_root_made(program, tmp_path, address, stats_at, for_all):
    nobody = pwd.getpwnam("www-data")
    notes = for_all / "notes"
    notes.mkdir()
    notes.chmod(0o777)
    serve = Servers(other_user.install(program, for_all / "venv"), tmp_path)
    try:
        server = serve(
            *("--http-socket", address, "--stats", stats_at, "--wsgi-file", "noting.py", "--spooler", for_all / "jobs"),
            *("--uid", "www-data", "--gid", "www-data"),
            cwd=for_all,
        )
        assert http.get(address, f"/?{notes}/one").status == 200
        until(lambda: (notes / "one").exists() and (notes / "one").read_text(), "the job is done", context=server.log)
        assert (notes / "one").read_text() == str(nobody.pw_uid)
        assert (for_all / "jobs").stat().st_uid == nobody.pw_uid
    finally:
        serve.stop_all()
