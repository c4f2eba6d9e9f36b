"""The spooler: how fast jobs are queued and run, and what 100,000 that wait cost."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

from rig import http, stats
from rig.addresses import tcp
from rig.waiting import until

from measure.goals import SOCKET
from measure.processes import spent
from measure.servers import Running, Setting

PREFIX = "uwsgi_spoolfile_on_"
# That queue at the same time.
THREADS = 16
NAMES = [SOCKET, "uwsgi --http-socket"]
# Without the disk's part: a file that was synced takes longer to remove than one that never was there.
IN_MEMORY = "CPU/job run in tmpfs, µs"


def spooler(stage) -> list[dict]:
    """One worker queues, one spooler runs. uWSGI does not sync what it queues; rwsgi does, file and directory."""
    rows = []
    full = stage.seconds > 1
    count, waiting, watched = (4_000, 100_000, 65) if full else (1_000, 10_000, 5)
    for name in NAMES:
        place = stage.place.room / "jobs"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        told = () if name == SOCKET else ("--stats", tcp())
        setting = _setting(place, *told)
        if not rows:
            rows.append({"server": "the disk alone, synced", "queued/s": _disk(place, count // 4)})
        row: dict = {}
        for running in stage.each([name], setting):
            row = {"server": name, **_throughput(running, place, count)}
        with tempfile.TemporaryDirectory(prefix="jobs", dir="/dev/shm") as memory:
            for running in stage.each([name], _setting(Path(memory), *told)):
                *_, cost = _apart(running, Path(memory), count)
                row[IN_MEMORY] = round(cost / count * 1e6)
        fill(place, waiting)
        for running in stage.each([name], setting):
            row.update(_waiting(running, stage.place.room / "touched", watched, waiting))
        if row:
            rows.append(row)
        shutil.rmtree(place)
    return rows


def _setting(place: Path, *told: str) -> Setting:
    return Setting("jobs", options=("--spooler", str(place), "--spooler-quiet", *told))


def _disk(place: Path, count: int) -> int:
    """Files that are written, synced, renamed and synced again by nobody else, a second."""
    directory = os.open(place, os.O_RDONLY)
    began = time.monotonic()
    for number in range(count):
        with (place / f".new{number}").open("wb") as file:
            file.write(b"x" * 250)
            file.flush()
            os.fsync(file.fileno())
        (place / f".new{number}").rename(place / f"file{number}")
        os.fsync(directory)
    took = time.monotonic() - began
    os.close(directory)
    for number in range(count):
        (place / f"file{number}").unlink()
    return round(count / took)


def _left(place: Path) -> int:
    return sum(entry.name.startswith(PREFIX) for entry in os.scandir(place))


def _ask(running: Running, target: str) -> None:
    assert http.request(running.address, "GET", target).status == 200


def _queue(running: Running, count: int, how: str = "") -> None:
    # In parts that a client waits for however slow the disk is.
    for _ in range(count // 200):
        _ask(running, f"/queue?count=200{how}")


def _apart(running: Running, place: Path, count: int) -> tuple[float, float, float]:
    """Queueing alone, then running alone: seconds of each, and processor time of running."""
    # 0 before it is started.
    pid = until(lambda: stats.read(running.stats)["spoolers"][0]["pid"], "the spooler runs")
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    _queue(running, count)
    queued = time.monotonic() - began
    assert _left(place) == count
    began, cost = time.monotonic(), spent(running.pid)
    os.kill(pid, signal.SIGCONT)
    # uWSGI's has to be woken for what was queued meanwhile.
    if running.server.package:
        os.kill(pid, signal.SIGUSR1)
    until(lambda: _left(place) == 0, "all jobs are run", 120)
    return queued, time.monotonic() - began, spent(running.pid) - cost


def _throughput(running: Running, place: Path, count: int) -> dict:
    queued, ran, cost = _apart(running, place, count)
    began = time.monotonic()
    _queue(running, count)
    until(lambda: _left(place) == 0, "all jobs are run", 120)
    both = time.monotonic() - began
    row = {"queued/s": round(count / queued)}
    # uWSGI syncs nothing that threads could share, and has none without an option.
    if not running.server.package:
        began = time.monotonic()
        _queue(running, count, f"&threads={THREADS}")
        row[f"queued/s by {THREADS} threads"] = round(count / (time.monotonic() - began))
        until(lambda: _left(place) == 0, "all jobs are run", 120)
    return row | {
        "run/s": round(count / ran), "CPU/job run, µs": round(cost / count * 1e6),
        "queued and run/s": round(count / both),
    }  # fmt: skip


def fill(place: Path, count: int) -> None:
    """Jobs for tomorrow, as either server would have written them."""
    tomorrow = time.time() + 86_400
    packet = b"\x11\x06\x00\x00\x01\x00a\x01\x00b"
    for number in range(count):
        path = place / f"{PREFIX}bench_1_{number}_7_1700000000_{number}"
        path.write_bytes(packet)
        os.utime(path, (tomorrow, tomorrow))


def _waiting(running: Running, touched: Path, seconds: int, count: int) -> dict:
    def begins() -> float:
        touched.unlink(missing_ok=True)
        began = time.time()
        _ask(running, f"/touch?path={touched}")
        until(lambda: touched.exists() and touched.read_text(), "the new job has run", 60)
        return float(touched.read_text()) - began

    # After the first look at all of them.
    begins()
    cost, began = spent(running.pid), time.monotonic()
    # Several turns of spooler-frequency, which is 30 s, are looked at from outside.
    time.sleep(seconds)
    share = (spent(running.pid) - cost) / (time.monotonic() - began)
    delays = sorted(begins() for _ in range(5))
    return {
        f"CPU with {count:,} waiting, %": round(share * 100, 2),
        "a new job beside them begins after, ms": round(delays[2] * 1e3, 1),
    }
