"""Instructions of a request, by what is asked and by process; and those of another time beside them. No server here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
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


# How servers call the application, its iterable's next and its close(), of Python's functions.
CALLS = {"PyObject_Vectorcall", "PyObject_CallFunctionObjArgs", "PyObject_CallObject", "PyObject_CallNoArgs", "PyIter_Next"}


def in_application(lines: Iterable[str], library: str) -> int:
    """Instructions of the application, with the `start_response` that it calls, in one of callgrind's files: what Python's
    functions take that the server's library calls it by."""
    names: dict[str, dict[str, str]] = {"ob": {}, "fn": {}}
    found, object_file, callee, calls = 0, "", "", None
    for line in lines:
        if match := re.match(r"(c?)(ob|fn)=(\(\d+\))(?: (.*))?$", line):
            called, kind, number, name = match.groups()
            # A name is written once, and is a number after that.
            name = names[kind].setdefault(number, name or "")
            if (called, kind) == ("", "ob"):
                object_file = name
            elif (called, kind) == ("c", "fn"):
                callee = name
        elif match := re.match(r"calls=(\d+)", line):
            calls = int(match[1])
        elif calls is not None:
            # A function that was called before, and has not returned, has all of this time: 0 calls.
            if calls and library in object_file and callee.split("'")[0] in CALLS:
                found += int(line.split()[1])
            calls = None
    return found


@dataclass(frozen=True)
class Cost:
    """Instructions of a request in a process, and how many of them are the application's."""

    whole: float
    application: float

    @property
    def server(self) -> float:
        """The server's own."""
        return self.whole - self.application


def beside(server: str, counts: dict[str, tuple[Cost, Cost]]) -> str:
    """A table of what the worker spends on a request, and what another server's process spends on the same."""
    titles = ["request", "worker", server, "ratio", "worker's own", f"{server}'s own", "ratio"]
    lines = ["", f"| {' | '.join(titles)} |", "| --- |" + " ---: |" * 6]
    for request, (worker, other) in counts.items():
        pairs = [(worker.whole, other.whole), (worker.server, other.server)]
        cells = [f"{ours:,.0f} | {theirs:,.0f} | {ours / theirs:.3f}" for ours, theirs in pairs]
        lines.append(f"| {request} | {' | '.join(cells)} |")
    return "\n".join(lines)


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
