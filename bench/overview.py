#!/usr/bin/env python3
"""Makes docs/performance.svg, the chart of the README, from the tables of docs/performance.md.

    bench/overview.py      after bench/run has written that page

Six works, those in which rwsgi loses among them. It measures nothing, and rounds nothing that the page does not.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

sys.path[:0] = [str(Path(__file__).resolve().parent)]
sys.dont_write_bytecode = True

from measure.charts import number  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
PAGE, CHART = ROOT / "docs" / "performance.md", ROOT / "docs" / "performance.svg"
# Sections of the page, as it calls them, and how the chart calls them.
WORKS = {
    "Hello, keep-alive, 1 process, 64 connections": "hello, keep-alive",
    "Flask page, 1 process": "Flask page",
    "Django page, 1 process": "Django page",
    "Hello, a connection for each request, 1 process": "hello, a new connection each",
    "1 MB response, 1 process, 16 connections": "1 MB response",
    "A stream of 1,000 chunks of 100 bytes, 1 process": "1,000 chunks of 100 bytes",
}
SERVERS = ("rwsgi --http-socket", "rwsgi --http", "uwsgi --http-socket", "uwsgi --http", "gunicorn", "granian")
SHOWN = ("uWSGI", "gunicorn", "granian", "Flask", "Django")
FACTS = ("measured", "machine", "Python", "rwsgi", "others", "extent")
# A panel, in pixels: its width, where its bars begin, their height and distance, and the room above them.
WIDE, LEFT, BAR, STEP, HEAD = 400, 142, 13, 19, 34
TOP, PANEL = 62, HEAD + len(SERVERS) * STEP + 16
WIDTH = 2 * WIDE + 20


@dataclass(frozen=True)
class Figure:
    """Processor time for a request in µs: the median of the rounds, and the part of it that a round was away at most."""

    median: float
    spread: float


def read(page: str) -> tuple[dict[str, str], dict[str, dict[str, Figure]]]:
    """The facts at the head of the page, and of each work the figures of each server."""
    head, *sections = re.split(r"^## ", page, flags=re.M)
    # The first list; another one explains the columns.
    listed = next(part for part in head.split("\n\n") if part.startswith("- "))
    facts = dict(re.findall(r"^- ([^:\n]+): (.*)$", listed, re.M))
    row = re.compile(r"^\| ([a-z][^|]*?) \| ([\d.,]+) ±(\d+)% \|", re.M)
    works = {}
    for section in sections:
        title = section.splitlines()[0]
        works[title] = {
            name: Figure(float(median.replace(",", "")), int(spread) / 100) for name, median, spread in row.findall(section)
        }
    return facts, works


def chart(page: str) -> str:
    """The chart. Raises KeyError where the page lacks a work or a fact."""
    facts, works = read(page)
    facts = {name: facts[name] for name in FACTS}
    height = TOP + (len(WORKS) + 1) // 2 * PANEL + 64
    panels = [
        _panel(name, works[title], index % 2 * (WIDE + 20), TOP + index // 2 * PANEL)
        for index, (title, name) in enumerate(WORKS.items())
    ]
    others = ", ".join(each for each in facts["others"].split(", ") if each.split()[0] in SHOWN)
    notes = [
        f"Measured {facts['measured']} on {facts['machine']}, Python {facts['Python']}.",
        f"rwsgi {facts['rwsgi'].split(',')[0]}, {others}.",
        f"Medians of {facts['extent']} of wrk on the same machine, 1 process each; the thin line is the largest distance of a round.",
    ]
    lines = [f'<text class="n" x="16" y="{height - 46 + 16 * index}">{escape(note)}</text>' for index, note in enumerate(notes)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">',
            "<title>Processor time of the server for one request, µs: less is better</title>",
            "<style>",
            "text{font:12px system-ui,sans-serif;fill:#1f2328}.t{font-size:15px;font-weight:600}.h{font-weight:600}.n{font-size:11px;fill:#59636e}",
            ".b{fill:#fff;stroke:#d1d9e0}.o{fill:#0969da}.p{fill:#818b98}.w{stroke:#1f2328}.e{text-anchor:end}",
            "@media (prefers-color-scheme:dark){text{fill:#e6edf3}.n{fill:#9198a1}.b{fill:#0d1117;stroke:#3d444d}.o{fill:#4493f8}.p{fill:#656c76}"
            ".w{stroke:#e6edf3}}",
            "</style>",
            f'<rect class="b" x=".5" y=".5" width="{WIDTH - 1}" height="{height - 1}" rx="6"/>',
            '<text class="t" x="16" y="26">Processor time of the server for one request, µs</text>',
            '<text class="n" x="16" y="44">Less is better. Each panel has its own scale.</text>',
            *panels,
            *lines,
            "</svg>",
            "",
        ]
    )


def _panel(name: str, figures: dict[str, Figure], left: float, top: float) -> str:
    most = max(figures[server].median * (1 + figures[server].spread) for server in SERVERS if server in figures)
    scale = (WIDE - LEFT - 62) / most
    parts = [f'<text class="h" x="{left + 16}" y="{top + 20}">{escape(name)}</text>']
    for index, server in enumerate(SERVERS):
        y, x = top + HEAD + index * STEP, left + LEFT
        parts.append(f'<text class="e" x="{x - 8}" y="{y + 10.5}">{escape(server)}</text>')
        figure = figures.get(server)
        if figure is None:
            parts.append(f'<text class="n" x="{x}" y="{y + 10.5}">no figures</text>')
            continue
        low, high = figure.median * (1 - figure.spread), figure.median * (1 + figure.spread)
        kind = "o" if server.startswith("rwsgi") else "p"
        parts += [
            f'<rect class="{kind}" x="{x}" y="{y}" width="{max(figure.median * scale, 1):.1f}" height="{BAR}"/>',
            f'<path class="w" d="M{x + low * scale:.1f} {y + BAR / 2}H{x + high * scale:.1f}"/>',
            f'<text x="{x + high * scale + 6:.1f}" y="{y + 10.5}">{number(figure.median)}</text>',
        ]
    return "\n".join(parts)


if __name__ == "__main__":
    CHART.write_text(chart(PAGE.read_text()))
    print(CHART)
