"""examples/spooler: the same application queues its work, and does it in place when `debug` is set."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from rig import http
from rig.waiting import until

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "spooler"


def post(address: str, target: str, **options: object) -> dict:
    body = json.dumps(options).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    answer = http.request(address, "POST", target, headers, body)
    assert answer.status == 200
    return json.loads(answer.body)


@pytest.fixture
def started(serve, address, tmp_path):
    def start(*more: str):
        options = ["--master", "--http-socket", address, "--wsgi-file", "app.py", "--callable", "app"]
        return serve(*options, "--spooler", tmp_path / "jobs", *more, cwd=EXAMPLE)

    return start


def test_the_work_is_done_by_a_spooler(started, address, tmp_path):
    server = started()
    picture, result = tmp_path / "a.png", tmp_path / "a.png.thumbnail"
    answer = post(address, "/upload", path=str(picture))
    until(lambda: result.exists() and result.read_text(), "the thumbnail is there", context=server.log)
    assert result.read_text().startswith("64 by process ")
    assert result.read_text() != f"64 by process {answer['pid']}\n"


def test_with_debug_the_work_is_done_in_the_request(started, address, tmp_path):
    started("--set", "debug=true")
    answer = post(address, "/upload", path=str(tmp_path / "a.png"))
    assert (tmp_path / "a.png.thumbnail").read_text() == f"64 by process {answer['pid']}\n"
    assert list((tmp_path / "jobs").iterdir()) == []


def test_some_work_waits_for_its_time(started, address, tmp_path):
    server = started("--spooler-frequency", "1", "--spooler-ordered")
    at = int(time.time()) + 2
    post(address, "/upload/tonight", path=str(tmp_path / "b.png"), at=str(at))
    result = tmp_path / "b.png.thumbnail"
    until(result.exists, "the thumbnail is there", context=server.log)
    assert time.time() >= at


@pytest.mark.only_rwsgi(why="it is rwsgi that the example's file is for")
def test_its_file_is_accepted(serve):
    checked = serve.run("--check", EXAMPLE / "spooler.ini", cwd=EXAMPLE)
    assert checked.wait_exit() == 0
    assert "warning" not in checked.log() and "no effect" not in checked.log()
