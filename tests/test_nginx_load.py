"""Ten thousand requests at a thousand concurrent to Django behind nginx, with no tuning: not one may fail."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from rig import stats
from rig.addresses import tcp
from rig.nginx import Nginx

DJANGO = Path(__file__).resolve().parent.parent / "examples" / "django"
REQUESTS, CONCURRENT = 10_000, 1_000


@pytest.mark.only_rwsgi(why="uWSGI's backlog of 100 turns some of them away")
@pytest.mark.parametrize("way", ["uwsgi-unix", "uwsgi-tcp", "proxy"])
def test_no_request_fails(serve, stats_at, tmp_path, way):
    before = stats.turned_away()
    document = load(serve, stats_at, tmp_path, way)
    if document["listen_queue_errors"] and stats.turned_away() != before:
        # Another test's may be among them. A socket that keeps no clients until their first byte counts only its own.
        again = tmp_path / "again"
        again.mkdir()
        document = load(serve, tcp(), again, way, "--no-defer-accept")
    assert document["listen_queue_errors"] == 0


def load(serve, stats_at: str, directory: Path, way: str, *options: str) -> stats.Document:
    """The stats when all was served."""
    backend = str(directory / "app.sock") if way == "uwsgi-unix" else tcp()
    example = {"uwsgi-unix": "/run/rwsgi/app.sock", "uwsgi-tcp": "127.0.0.1:3031", "proxy": "127.0.0.1:8000"}[way]
    server = serve(
        *("--http-socket" if way == "proxy" else "--socket", backend, "--module", "demo.wsgi", "--master"),
        *("--processes", 4, "--threads", 2, "--stats", stats_at, *options),
        cwd=DJANGO,
    )
    nginx = Nginx(directory, {way: (example, backend)})
    try:
        ab = subprocess.run(
            ["ab", "-q", "-s", "120", "-n", str(REQUESTS), "-c", str(CONCURRENT), f"http://{nginx.addresses[way]}/"],
            capture_output=True, text=True, timeout=280,
        )  # fmt: skip
        told = f"{ab.stdout}\n{ab.stderr}\n{nginx.log()[-3000:]}"
        assert ab.returncode == 0, told
        assert re.search(rf"Complete requests:\s+{REQUESTS}\n", ab.stdout), told
        assert re.search(r"Failed requests:\s+0\n", ab.stdout), told
        assert "Non-2xx" not in ab.stdout, told
        assert re.search("error|crit|alert|emerg", nginx.log()) is None, told
    finally:
        nginx.stop()
    document = server.wait_stats(lambda document: stats.total(document, "requests") >= REQUESTS, "all counted")
    assert stats.total(document, "requests") == REQUESTS
    assert stats.responses(document) == {"2xx": REQUESTS}
    return document
