"""uwsgitop, unchanged, in a real terminal, reads what the server says."""

from __future__ import annotations

import pytest

from rig import http
from rig.addresses import abstract
from rig.http import Connection, head
from rig.terminal import table


@pytest.mark.parametrize("form", ["tcp", "unix", "abstract", "http"])
def test_it_shows_the_workers(serve, terminal, venv_bin, address, stats_at, tmp_path, form):
    if form == "abstract" and serve.program.is_uwsgi:
        pytest.skip("uWSGI's abstract names end in a NUL")
    at = {"tcp": stats_at, "http": stats_at, "unix": str(tmp_path / "stats"), "abstract": abstract()}[form]
    http_option = ["--stats-http"] if form == "http" else []
    server = serve(
        *("--http-socket", address, "--wsgi-file", "probe.py", "--master", "--processes", 3, "--memory-report"),
        *("--stats", at, *http_option),
    )
    for _ in range(60):
        http.get(address, "/pid")
    screen = terminal([venv_bin / "uwsgitop", f"http://{at}" if form == "http" else at])
    screen.wait("WID", "req: 60", f"masterpid: {server.pid}", "lq: 0", "uwsgi-")

    # uwsgitop writes its screen in pieces, and the last row's last column at the end. A request is counted while its worker
    # is still busy with its end.
    def is_whole(text: str) -> bool:
        rows = table(text)
        return len(rows) == 3 and all("LastSpwn" in row and row["STATUS"] == "idle" for row in rows)

    rows = table(screen.wait_for(is_whole, "three whole rows of idle workers"))
    assert sorted(row["WID"] for row in rows) == ["1", "2", "3"]
    assert sum(int(row["REQ"]) for row in rows) == 60
    for row in rows:
        if not serve.program.is_uwsgi:  # which knows of memory only what a worker's last request told
            assert row["RSS"].endswith("M") and float(row["RSS"][:-1]) > 1
            assert row["VSZ"][-1] in "MG" and float(row["VSZ"][:-1]) > 0
        assert (row["ReSpwn"], row["HC"], row["EXC"]) == ("1", "0", "0")
        assert row["LastSpwn"].count(":") == 2
    assert {int(row["PID"]) for row in rows} <= {process.pid for process in server.processes()}
    screen.press("q")
    screen.wait("left with 0")


def test_it_shows_requests_as_they_come(serve, terminal, venv_bin, address, stats_at, tmp_path, record):
    serve("--http-socket", address, "--wsgi-file", "probe.py", "--master", "--threads", 2, "--stats", stats_at)
    screen = terminal([venv_bin / "uwsgitop", stats_at])
    screen.wait("req: 0")
    for _ in range(25):
        http.get(address, "/pid")
    screen.wait("req: 25")
    go = tmp_path / "go"
    with Connection(address) as connection:
        connection.send(head("GET", f"/slow?go={go}&record={record.path}"))
        screen.wait_for(lambda text: any(row.get("STATUS") == "busy" for row in table(text)), "a busy worker")
        screen.press("a", "a")
        screen.wait(":0")
        go.touch()
        assert connection.response().status == 200
    screen.wait("req: 26")
