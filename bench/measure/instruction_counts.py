"""Instructions of a request, by what is asked and by process; and those of another time beside them. No server here."""

from __future__ import annotations

import json
from pathlib import Path

# What is asked -> process ("worker", "http router") -> instructions of one request.
Counts = dict[str, dict[str, float]]


def save(counts: Counts, file: Path) -> None:
    """Writes them down for `load`."""
    file.write_text(json.dumps(counts, indent=2) + "\n")


def load(file: Path) -> Counts:
    """What `save` wrote."""
    return json.loads(file.read_text())


def change(now: float, before: float) -> float:
    """By how many percent it grew."""
    return 100 * (now / before - 1)


def heading(before: Counts | None) -> str:
    """The head of the table that `row` continues."""
    if before is None:
        return "| request | process | instructions |\n| --- | --- | ---: |"
    return "| request | process | instructions | before | change |\n| --- | --- | ---: | ---: | ---: |"


def row(request: str, process: str, now: float, before: Counts | None) -> str:
    """One figure. Where `before` does not have it, its cells stay empty."""
    cells = [request, process, f"{now:,.0f}"]
    if before is not None:
        then = before.get(request, {}).get(process)
        cells += ["", ""] if then is None else [f"{then:,.0f}", f"{change(now, then):+.2f} %"]
    return f"| {' | '.join(cells)} |"


def grown(now: Counts, before: Counts, within: float) -> list[str]:
    """What costs over `within` percent more than before, and what was counted before and is not any more."""
    found = []
    for request, processes in before.items():
        for process, then in processes.items():
            count = now.get(request, {}).get(process)
            if count is None:
                found.append(f"{request}, {process}: not counted")
            elif change(count, then) > within:
                found.append(f"{request}, {process}: {change(count, then):+.2f} %")
    return found
