"""What bench/growth.py computes, against what is known exactly; and whether it works at all."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

import growth
import pytest
from measure.growth import Cost, by_dimension, chart, table, verdict

SIZES = [100, 200, 400, 800, 1_600]


def cost(of, dimension: str = "Workers", name: str = "a poll") -> Cost:
    made = Cost(dimension, name, "µs", "workers")
    for size in SIZES:
        for factor in (0.9, 1, 1.1):
            made.add(size, of(size) * factor)
    return made


@pytest.mark.parametrize("power", [0, 0.5, 1, 2])
def test_a_power_of_the_size_is_its_slope(power):
    assert cost(lambda size: 3 * size**power).slope() == pytest.approx(power)


def test_what_is_paid_once_does_not_hide_that_the_rest_is_quadratic():
    hidden = cost(lambda size: 100_000 + size**2)
    assert hidden.slope() < hidden.slope(last=3)
    assert verdict(hidden) == "over 1.2" and verdict(cost(lambda size: 100 + size)) == ""


def test_one_round_far_off_moves_neither_the_slope_nor_goes_unseen():
    disturbed = cost(lambda size: size)
    disturbed.rounds["400"].append(4_000)
    assert disturbed.slope() == pytest.approx(1, abs=0.1)
    assert disturbed.spread() > 5


def test_what_costs_nothing_has_no_slope():
    nothing = cost(lambda _size: 0)
    assert (nothing.slope(), nothing.spread(), verdict(nothing)) == (0, 0, "")
    assert chart("Workers", [nothing, cost(float)])


def test_a_dimension_has_a_table_and_a_chart_of_its_own():
    costs = [cost(float), cost(float, name="a scrape"), cost(float, dimension="Idle jobs, --x")]
    dimensions = by_dimension(costs)
    assert [len(group) for group in dimensions.values()] == [2, 1]
    rows = table(dimensions["Workers"]).splitlines()
    assert rows[0].startswith("| workers | 100 | 200 | 400 | 800 | 1,600 | slope |") and len(rows) == 4
    assert rows[2] == "| a poll, µs | 100 | 200 | 400 | 800 | 1,600 | 1.00 | 1.00 | 10% |  |"
    picture = xml.etree.ElementTree.fromstring(chart("Workers", dimensions["Workers"]))
    assert "a scrape (1.00)" in ["".join(text.itertext()) for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert growth.file_of("Idle jobs, --x") == "idle-jobs-x.svg"


def test_it_measures(tmp_path):
    rwsgi = Path(sys.prefix) / "bin" / "rwsgi"
    command = [sys.executable, growth.__file__, "--smoke", "--only", "connections-http,workers,vassals", "--rwsgi", rwsgi]
    done = subprocess.run([*command, "--out", tmp_path], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    written = (tmp_path / "growth.md").read_text()
    assert written.count("\n## ") == 4 and "| emperor: start, ms | " in written
    assert len(list((tmp_path / "growth").iterdir())) == 3
