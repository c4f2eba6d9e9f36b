"""What bench/scale.py computes, against what is known exactly; and whether it works at all."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import scale

# Two families: a counter with two series, and a histogram with one. Lengths, then fields 1 (name), 3 (type) and 4 (metric).
PROTOBUF = b"\x0a\x0a\x01a\x18\x00\x22\x00\x22\x01\x3a" + b"\x0e\x0a\x01b\x18\x04\x22\x07\x3a\x05\x08\x80\x01\x28\x05"


def test_series_are_lines_of_text_and_messages_of_protobuf():
    assert scale.count_series(b"# HELP a x\n# TYPE a counter\na{b=\"c\"} 1\na 2\n# EOF\n", "OpenMetrics") == 2
    assert scale.count_series(PROTOBUF, "protobuf") == 3


def test_a_line_is_found_through_its_points():
    assert scale.line_through([(1, 5), (2, 7), (4, 11)]) == pytest.approx((2, 3))
    assert scale.line_through([(3, 8)]) == (0, 8)


def test_a_server_is_its_fixed_part_its_workers_and_its_routes():
    def server(workers: int, routes: int) -> scale.Measured:
        return scale.Measured(workers, routes, 0, {}, scale.Scrape(100 + 30 * workers + 7 * routes, 0, 0))

    fitted = scale.model([server(1, 1), server(8, 1), server(64, 1), server(8, 200)], lambda server: server.poll.series)
    assert (fitted.fixed, fitted.worker, fitted.route) == pytest.approx((100, 30, 7))
    assert fitted.of(8, 20) == pytest.approx(100 + 240 + 140)


def test_letters_are_names_without_digits():
    assert scale.letters(0) == "aaa" and scale.letters(199) == "bjj"


def test_it_measures_servers_and_a_prometheus(tmp_path):
    rwsgi = Path(sys.prefix) / "bin" / "rwsgi"
    assert shutil.which("prometheus"), "tests/run installs Debian's package `prometheus`"
    out = tmp_path / "scale.json"
    done = subprocess.run(
        [sys.executable, scale.__file__, "--smoke", "--rwsgi", rwsgi, "--out", out], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    read = json.loads(out.read_text())
    few, _, many = read["servers"]
    assert many["scrapes"]["text"]["series"] > few["scrapes"]["text"]["series"] > few["scrapes"]["protobuf"]["series"] > 0
    assert all(scrape["microseconds"] > 0 for server in read["servers"] for scrape in server["scrapes"].values())
    for run in read["prometheus"]:
        # Beside those of the target: Prometheus' own about the scrape.
        assert run["series"] > 0 and run["microseconds_per_sample"] > 0 and run["bytes_per_sample"] > 0
    assert "| 100,000 workers" in done.stdout
    again = subprocess.run([sys.executable, scale.__file__, "--report", "--out", out], capture_output=True, text=True, check=True)
    assert again.stdout == done.stdout
