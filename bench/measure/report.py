"""The page that a run becomes: Markdown with its tables, and a chart beside it for each work."""

from __future__ import annotations

from pathlib import Path

from measure import charts
from measure.goals import GOALS
from measure.results import Middle, Results
from measure.servers import SERVERS
from measure.works import WORKS

HOW = """\
One wrk on the same machine loads one server at a time over loopback; the servers take turns, and the order is another
one in every round. Shown are medians of the rounds; ± is the larger distance of a round from it. Every server is started
as its own documentation advises, without an access log, `rwsgi` with its stats, counters and latency recording on. The
same application runs on all of them, and each answer is checked before it is measured. A row whose ± of processor time is over
20 % is measured up to twice more, and the set of rounds that lie closest together is kept; what is over 20 % in the
tables stayed so.

- CPU/request: user and system time of all processes of the server, over the run, for each request. It holds on a
  small or noisy machine, where requests a second do not; wrk takes its share of the same cores.
- p50, p99, p100: as wrk tells them, which corrects for requests that a slow answer kept it from sending.
- errors: connections refused, broken or timed out, and answers that are not 200.
- starves: whether a client that came during the load was answered only after it.
- memory: proportional set size of all processes of the server, just after the load.
- others: what else ran on the machine meanwhile, in cores. Far from 0, the row deserves distrust.
"""


# What bench/instructions and bench/profile.py have measured, written by hand.
INSIDE = Path(__file__).resolve().parent.parent / "inside.md"


def write(results: Results, page: Path, pictures: Path) -> None:
    """Writes `page`, and its charts into `pictures`, a directory beside it."""
    pictures.mkdir(parents=True, exist_ok=True)
    for old in pictures.glob("*.svg"):
        old.unlink()
    parts = ["# Performance", "Made by `bench/run`: do not edit.", _header(results), HOW, _goals(results)]
    for work in WORKS:
        if work.name not in results.rounds and work.name not in results.failures:
            continue
        parts.append(f"## {_capital(work.title)}")
        unit, factor = PICTURED[work.pictured]
        found = {server.name: results.get(work.name, server.name, work.pictured) for server in SERVERS}
        values = {server: middle.times(factor) for server, middle in found.items() if middle}
        if values:
            name = f"{work.name}.svg"
            (pictures / name).write_text(charts.bars(_capital(work.title), unit, values))
            parts += [f"![{work.title}]({pictures.name}/{name})", _table(results, work.name)]
        parts += [f"- {server}: no figures, {why}" for server, why in results.failures.get(work.name, {}).items()]
    for name, title in SPECIAL.items():
        if rows := results.special.get(name):
            parts += [f"## {title}", _rows(rows)]
    notes = [f"- {server.name}: {server.notes}" for server in SERVERS if server.notes]
    parts += ["## Notes", "\n".join(notes), INSIDE.read_text()]
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n\n".join(part.strip() for part in parts) + "\n")


# What a chart can show: its unit, and what a figure is multiplied with for it.
PICTURED = {
    "cpu": ("processor time of the server for each request, µs (less is better)", 1),
    "p99": ("p99 of the fast page, ms (less is better)", 1e-3),
}

SPECIAL = {
    "nginx": "Django behind nginx: 10,000 requests, 1,000 at once (ab)",
    "reload": "A reload every second, with an application that takes 2 s to import",
    "idle": "Idle keep-alive connections",
    "start": "Start, from exec to the first answer",
    "polls": "Stats polls; what ten a second cost is a tenth of what a hundred do",
    "django-memory": "Memory of 4 Django workers",
    "spooler": "The spooler: one worker queues, one spooler runs; uWSGI does not sync what it queues",
}


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _header(results: Results) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in results.header.items())


def _goals(results: Results) -> str:
    lines = ["## Goals", "", "| work | goal | measured | reached |", "| --- | --- | --- | --- |"]
    for goal in GOALS:
        verdict = goal.judge(results)
        figure = verdict.figure if verdict else "not part of this run"
        mark = "" if verdict is None else "yes" if verdict.reached else "**no**"
        lines.append(f"| {goal.work} | {goal.wanted} | {figure} | {mark} |")
    return "\n".join(lines)


def _table(results: Results, work: str) -> str:
    lines = [
        "| server | CPU/request, µs | requests/s | p50, ms | p99, ms | p100, ms | errors | starves | memory, MB | others |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for server in SERVERS:
        found = {figure: results.get(work, server.name, figure) for figure in FIGURES}
        if found["cpu"] is None:
            continue
        cells = [show(found[figure]) for figure, show in FIGURES.items()]
        lines.append(f"| {server.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(middle: Middle) -> str:
    return f"{charts.number(middle.median)} ±{middle.spread:.0%}"


def _milliseconds(middle: Middle) -> str:
    return charts.number(middle.median / 1e3)


FIGURES = {
    "cpu": _spread,
    "rate": _spread,
    "p50": _milliseconds,
    "p99": _milliseconds,
    "p100": _milliseconds,
    "errors": lambda middle: f"{middle.median:.0f}",
    "starved": lambda middle: "yes" if middle.median else "no",
    "pss": lambda middle: f"{middle.median / 1e6:.1f}",
    "foreign": lambda middle: f"{middle.median:.2f}",
}


def _rows(rows: list[dict[str, float | str]]) -> str:
    titles = list(dict.fromkeys(title for row in rows for title in row))
    lines = [f"| {' | '.join(titles)} |", "|" + " --- |" * len(titles)]
    for row in rows:
        cells = [row.get(title, "") for title in titles]
        shown = [cell if isinstance(cell, str) else f"{cell:,}" if isinstance(cell, int) else f"{cell:,.3g}" for cell in cells]
        lines.append(f"| {' | '.join(shown)} |")
    return "\n".join(lines)
