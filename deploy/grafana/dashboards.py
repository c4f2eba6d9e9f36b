#!/usr/bin/env python3
"""Writes the dashboards beside it: python3 deploy/grafana/dashboards.py"""

from __future__ import annotations

import json
from pathlib import Path

from fleet_board import fleet
from server_board import server
from uwsgi_board import uwsgi

DASHBOARDS = {"server.json": server, "fleet.json": fleet, "uwsgi.json": uwsgi}


def texts() -> dict[str, str]:
    """The text of each file."""
    return {name: json.dumps(make(), indent=1, ensure_ascii=False) + "\n" for name, make in DASHBOARDS.items()}


if __name__ == "__main__":
    for file, content in texts().items():
        Path(__file__).with_name(file).write_text(content, encoding="utf-8")
