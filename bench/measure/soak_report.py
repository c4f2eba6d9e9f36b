"""The results of a soak, as a page of Markdown."""

from __future__ import annotations

import math
import sys
import time

from measure.slope import Slope
from measure.soak import Plan, Watched, slope

_ROLES = ["master", "http router", "fork server", "workers", "shared memory"]
_MEASURES = ["PSS", "USS", "RSS", "descriptors"]


def say(text: str) -> None:
    """Prints a line of progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _size(value: float, what: str) -> str:
    return f"{value:.0f}" if what == "descriptors" else f"{value / 1024:,.0f} kB"


def _growth(found: Slope, what: str) -> str:
    """An hour's growth and its interval; kB for memory."""
    unit, digits = (1.0, 1) if what == "descriptors" else (1024.0, 0)
    middle, low, high = (value * 3600 / unit for value in (found.middle, found.low, found.high))
    if math.isinf(low) or math.isinf(high):
        return f"{middle:+,.{digits}f}"
    # No minus before a nothing.
    middle, low, high = (value if abs(value) >= 0.5 * 10**-digits else 0.0 for value in (middle, low, high))
    return f"{middle:+,.{digits}f} [{low:+,.{digits}f}, {high:+,.{digits}f}]"


def page(watched: list[Watched], plan: Plan, moment: float, header: dict[str, str]) -> str:
    """The page after `moment` seconds."""
    lines = ["# Soak", "", *(f"- {name}: {text}" for name, text in header.items())]
    lines += [
        f"- {moment / 60:.0f} of {plan.seconds / 60:.0f} minutes at {plan.rate:g} requests/s to each server, all at the "
        f"same time; 2 processes of 2 threads; a reload every {plan.reload_every:g} s; workers recycled after "
        f"{plan.max_requests} requests (granian: after 60 s)",
        f"- memory sampled every {plan.sample_every:g} s and summed over the processes of a role; the median between two "
        f"reloads is a point; slopes by Theil and Sen over the points after {plan.warm_up / 60:g} minutes, with Sen's 95 % interval",
        "- *flat*: the interval holds 0. *grows*, *shrinks*: it does not. *-*: too few points",
        "",
        "| server | answered | lost | reloads |",
        "| --- | ---: | ---: | ---: |",
    ]
    for each in watched:
        lines.append(f"| {each.name} | {each.load.answered:,} | {sum(each.load.lost.values()):,} | {each.reloads} |")
    lines += [
        "",
        "| server | of | what | first | last | growth in an hour | |",
        "| --- | --- | --- | ---: | ---: | ---: | --- |",
    ]
    for each in watched:
        keys = [(who, what) for who in _ROLES for what in _MEASURES if (who, what) in each.series]
        for who, what in keys:
            found, first, last = slope(each.series[who, what], plan)
            sizes = f"{_size(first, what)} | {_size(last, what)}"
            lines.append(f"| {each.name} | {who} | {what} | {sizes} | {_growth(found, what)} | {found.verdict} |")
    lines.append("")
    for each in watched:
        if each.load.lost:
            lines += [
                f"Lost by {each.name}: "
                + ", ".join(f"{why} {times}" for why, times in each.load.lost.most_common())
                + ".",
                "",
            ]
    return "\n".join(lines)
