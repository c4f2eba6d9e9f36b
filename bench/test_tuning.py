"""What bench/tuning.py computes; that it works; and that docs/tuning.md has the tables that it makes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import tuning

ROOT = Path(__file__).resolve().parent.parent


def test_settings_take_turns_and_medians_are_shown():
    order: list[str] = []
    figures = iter(range(100))

    def measure(setting: str) -> dict[str, float]:
        order.append(setting)
        return {"figure": next(figures)}

    found = tuning.Bench("", tuning.Extent(3, 1, 1)).rounds(["a", "b"], measure)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert found == [{"figure": 3}, {"figure": 2}]


def test_a_percentile_is_one_of_the_values():
    values = [float(number) for number in range(100, 0, -1)]
    assert (tuning.percentile(values, 50), tuning.percentile(values, 99), tuning.percentile([7.0], 99)) == (51, 100, 7)


def test_the_page_has_a_place_for_each_table():
    page = tuning.PAGE.read_text()
    for name in [*tuning.TABLES, "conditions"]:
        page = tuning.put(page, name, f"what {name} was\n")
        assert f"made by bench/tuning.py -->\nwhat {name} was\n<!-- end of {name} -->" in page


@pytest.mark.parametrize("name", ["waiting", "slow-clients", "buffering"])
def test_it_makes_the_tables_of_the_page(name):
    rwsgi = Path(sys.executable).parent / "rwsgi"
    command = [sys.executable, ROOT / "bench" / "tuning.py", "--smoke", "--only", name, "--rwsgi", rwsgi]
    made = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=200, check=False)
    assert made.returncode == 0, made.stderr
    first_columns = [[line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")]
                     for text in (made.stdout, re.search(rf"<!-- {name}: .*?<!-- end", tuning.PAGE.read_text(), re.DOTALL)[0])]  # fmt: skip
    assert first_columns[0] == first_columns[1] and len(first_columns[0]) > 3
