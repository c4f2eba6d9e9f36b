"""The soak's arithmetic, and that it works: seconds of it. What it finds in hours is in docs/reliability.md."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from measure import soak_report
from measure.servers import Place
from measure.slope import fit, medians
from measure.soak import SOAKED, Plan, look, role, soak

QUICK = Plan(seconds=6, rate=100, reload_every=1, max_requests=100, sample_every=0.2, warm_up=0)


def noisy(slope: float, count: int = 40) -> list[tuple[float, float]]:
    chance = random.Random(7)
    return [(moment, slope * moment + chance.gauss(0, 5)) for moment in range(count)]


@pytest.mark.parametrize(("slope", "verdict"), [(0.0, "flat"), (1.0, "grows"), (-1.0, "shrinks")])
def test_a_slope_is_told_from_noise(slope, verdict):
    found = fit(noisy(slope))
    assert found.verdict == verdict
    assert found.low <= slope <= found.high and found.middle == pytest.approx(slope, abs=0.3)


def test_one_outlier_in_four_moves_nothing():
    points = [(moment, value + (1000 if moment % 4 == 0 else 0)) for moment, value in noisy(0.0)]
    assert fit(points).verdict == "flat"


def test_a_line_has_no_width_and_a_constant_no_slope():
    assert fit([(moment, 2.0 * moment) for moment in range(20)]) == fit(
        [(moment, 2.0 * moment) for moment in range(30)]
    )
    assert fit([(moment, 5.0) for moment in range(20)]).verdict == "flat"


def test_few_points_tell_nothing():
    found = fit([(0.0, 1.0), (1.0, 2.0), (2.0, 3.0)])
    assert found.verdict == "-" and found.middle == 1.0 and math.isinf(found.high)
    assert fit([]).verdict == "-"


def test_what_comes_with_each_reload_is_no_growth():
    # A sawtooth, of which the last tooth is cut at its highest.
    points = [(float(moment), float(moment % 60)) for moment in range(10 * 60 + 59)]
    assert fit(medians(points, 60)).verdict == "flat"
    assert [value for _, value in medians(points, 60)][:3] == [29.5, 29.5, 29.5]


def test_memory_that_a_process_takes_is_seen_and_so_are_its_descriptors(tmp_path):
    script = (
        "import sys, os; print(0, flush=True); sys.stdin.readline(); kept = bytearray(b'k' * (50 << 20)); "
        "fds = [os.dup(0) for _ in range(9)]; print(1, flush=True); sys.stdin.readline()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        process.stdout.readline()
        before = look(process.pid)
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
        after = look(process.pid)
        for what in ("PSS", "USS", "RSS"):
            assert after["master", what] - before["master", what] >= 48 << 20
        assert after["master", "descriptors"] - before["master", "descriptors"] == 9
        assert role(process.pid, process.pid) == "master" and role(process.pid, 1) == "workers"
    finally:
        process.communicate("\n")


@pytest.fixture
def place(tmp_path) -> Place:
    """The programs of this environment, which tests/run has installed."""
    venv = Path(sys.prefix)
    if not os.access(venv / "bin/rwsgi", os.X_OK):
        pytest.skip("rwsgi is not installed beside this Python: tests/run installs it")
    return Place(venv, venv / "bin/rwsgi", Path("/nonexistent"), tmp_path)


def test_a_soak_of_seconds_samples_every_role_and_loses_nothing_in_reloads(place):
    told = []
    ours = [soaked for soaked in SOAKED if soaked.name == "rwsgi --http"]
    (watched,) = soak(
        ours, place, QUICK, lambda watched, moment: told.append(soak_report.page(watched, QUICK, moment, {}))
    )
    assert {who for who, _ in watched.series} == {"master", "http router", "fork server", "workers", "shared memory"}
    assert watched.reloads >= 1 and watched.load.answered > 0
    assert not watched.load.lost, watched.load.lost
    assert watched.running.process.returncode == 0
    # A line for each series, on a page that was written at each reload.
    assert len(told) == watched.reloads + 1
    assert told[-1].count("\n| rwsgi --http |") == len(watched.series) + 1
