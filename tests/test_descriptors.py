"""What programs that the application executes have open: their standard streams, and nothing of the server's."""

from __future__ import annotations

import json

import pytest

from rig import http
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI needs close-on-exec for it, and leaves others open then too")


@pytest.mark.parametrize("kind", ["--http", "--http-socket"])
def test_a_program_that_the_application_executes_gets_no_descriptor_of_the_server(serve, address, stats_at, tmp_path, kind):
    leaks = tmp_path / "leaks"
    leaks.mkdir()
    server = serve(
        *(kind, address, "--socket", tmp_path / "app.sock", "--stats", stats_at, "--wsgi-file", "leaks.py"),
        *("--spooler", tmp_path / "jobs", "--mule", "--locks", 2, "--cache2", "name=a,items=10", "--metric", "name=m"),
        *("--threads", 2, "--harakiri", 60, "--log-master", "--master-fifo", tmp_path / "fifo"),
        env={"LEAKS": str(leaks)},
    )
    assert http.get(address, "/").body == b"noted"
    for where in ["loading", "worker", "spooler", "mule", "signal"]:
        until(lambda: (leaks / where).exists(), f"the {where} has noted", context=server.log)
        found = json.loads((leaks / where).read_text())
        assert sorted(map(int, found)) == [0, 1, 2], f"{where}: {found}"
    assert server.process.poll() is None
