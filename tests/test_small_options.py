"""Options of few words: what the application finds in its environment, what is imported beside it."""

from __future__ import annotations

import pytest

from rig import http
from rig.server import APPS
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="the log's words")

SITE = """
import os

def application(environ, start_response):
    start_response("200 OK", [])
    names = ("FIRST", "SECOND", "GONE")
    return [" ".join(f"{name}={os.environ.get(name)}" for name in names).encode()]
"""


def test_env_and_unenv_are_the_application_s_environment(serve, address, tmp_path):
    (tmp_path / "site_env.py").write_text(SITE)
    serve(
        *("--http-socket", address, "--wsgi-file", "site_env.py", "--env", "FIRST=a=b", "--env", "SECOND="),
        *("--unenv", "GONE"),
        cwd=tmp_path,
        env={"GONE": "still here"},
    )
    assert http.get(address, "/").body == b"FIRST=a=b SECOND= GONE=None"


def test_a_directory_of_files_is_the_application_s_environment(serve, address, tmp_path):
    (tmp_path / "site_env.py").write_text(SITE)
    directory = tmp_path / "variables"
    directory.mkdir()
    (directory / "FIRST").write_text("from a file  \nanother line\n")
    (directory / "SECOND").write_text("")
    serve("--http-socket", address, "--wsgi-file", "site_env.py", "--envdir", directory, cwd=tmp_path)
    assert http.get(address, "/").body == b"FIRST=from a file SECOND= GONE=None"


IMPORTED = """
import sys, uwsgi

with open("order", "a") as order:
    order.write(f"{__name__} {uwsgi.worker_id()}\\n")
"""


@pytest.fixture
def order(serve, address, stats_at, tmp_path):
    """Starts two workers; says what was imported, in which process (worker 0: before the fork), in this order."""
    for name in ("site_env", "once", "everywhere"):
        (tmp_path / f"{name}.py").write_text(IMPORTED + SITE)

    def start(*options):
        server = serve(
            *("--http-socket", address, "--wsgi-file", "site_env.py", "--processes", 2, "--stats", stats_at),
            *("--import", "once", "--shared-import", "everywhere", "--import", "missing_module", *options),
            cwd=tmp_path,
        )
        server.wait_workers(2)
        server.logged("import: 'missing_module' cannot be imported")
        assert http.get(address, "/").status == 200
        return (tmp_path / "order").read_text().splitlines()

    return start


def test_what_is_to_be_imported_is_imported_before_the_application_and_the_fork(order):
    assert order() == ["everywhere 0", "once 0", "uwsgi_file_site_env 0"]


def test_each_worker_that_loads_the_application_imports_beside_it(order):
    everywhere, *rest = order("--lazy-apps")
    assert everywhere == "everywhere 0"
    for worker in (1, 2):
        assert [line for line in rest if line.endswith(str(worker))] == [f"once {worker}", f"uwsgi_file_site_env {worker}"]


def test_so_keepalive_is_set_on_what_is_accepted(serve, address, tmp_path):
    serve("--http-socket", address, "--wsgi-file", "worklife.py", "--so-keepalive")
    started, go = tmp_path / "started", tmp_path / "go"
    with http.Connection(address) as connection:
        connection.send(http.head("GET", f"/?started={started}&until={go}"))
        until(started.exists, "the request has begun")
        port = f"{int(address.rsplit(':', 1)[1]):04X}"
        with open("/proc/net/tcp") as table:
            rows = [line.split() for line in table]
        # Timer 2 is keep-alive, in the fourth column of a connection that is established.
        timers = [row[5].split(":")[0] for row in rows if row[1].endswith(f":{port}") and row[3] == "01"]
        assert timers == ["02"]
        go.touch()
        assert connection.response().status == 200


def test_values_with_a_comment_behind_them_are_read_and_digits_are_a_unix_socket(serve, tmp_path):
    file = tmp_path / "site.ini"
    file.write_text(f"[uwsgi]\nhttp-socket = 9090\nwsgi-file = {APPS}/foobar.py\nprocesses = 2 ; of them\nvacuum = yes please\n")
    server = serve(file, cwd=tmp_path, listens=["./9090"])
    assert http.get(str(tmp_path / "9090"), "/").status == 200
    assert "'2 ; of them' is read as 2, as uWSGI does" in server.log()
    server.stop()
    assert not (tmp_path / "9090").exists()
