"""How a cost grows with a size: its slope, a table and a chart for each. Pure arithmetic and text."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from itertools import groupby

from measure import charts
from measure.charts import number
from measure.results import Middle
from measure.slope import fit

# A cost that grows with a higher power of the size is looked into.
LINEAR = 1.2


@dataclass
class Cost:
    """What something cost at several sizes."""

    # The chart that it is in: one for each kind of size.
    dimension: str
    name: str
    unit: str
    # What its size counts.
    size: str
    # rounds[size]: one value for each round. JSON has the sizes as text.
    rounds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, size: int, value: float) -> None:
        """One more round."""
        self.rounds.setdefault(str(size), []).append(value)

    def points(self) -> list[tuple[int, Middle]]:
        """The rounds of each size, in order."""
        sizes = sorted((int(size), values) for size, values in self.rounds.items())
        return [(size, Middle(statistics.median(values), min(values), max(values))) for size, values in sizes]

    def slope(self, last: int = 0) -> float:
        """The power of the size that it grows with: 1 is linear, 0 is a cost that does not grow. Of all sizes, or only of
        the last ones, where what is paid once is the smallest part."""
        points = [(math.log(size), math.log(middle.median)) for size, middle in self.points() if middle.median > 0]
        # Without the sign of a zero.
        return round(fit(points[-last:]).middle, 6) + 0.0

    def spread(self) -> float:
        """The largest of any size."""
        return max((middle.spread for _, middle in self.points()), default=0.0)


def verdict(cost: Cost) -> str:
    """Whether it grows faster than what it is for."""
    steepest = max(cost.slope(), cost.slope(last=3))
    return "" if steepest <= LINEAR else "over 1.2"


def table(costs: list[Cost]) -> str:
    """A row for each; empty where one was not measured at a size of the others."""
    sizes = sorted({size for cost in costs for size, _ in cost.points()})
    head = [costs[0].size, *(f"{size:,}" for size in sizes), "slope", "of the last three", "spread", ""]
    rows = []
    for cost in costs:
        found = {size: number(middle.median) for size, middle in cost.points()}
        slopes = [f"{cost.slope():.2f}", f"{cost.slope(last=3):.2f}", f"{cost.spread():.0%}", verdict(cost)]
        rows.append([f"{cost.name}, {cost.unit}", *(found.get(size, "") for size in sizes), *slopes])
    ruler = [":---", *("---:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ruler, *rows]) + "\n"


def by_dimension(costs: list[Cost]) -> dict[str, list[Cost]]:
    """In the order in which they were measured."""
    return {name: list(group) for name, group in groupby(costs, key=lambda cost: cost.dimension)}


def chart(dimension: str, costs: list[Cost]) -> str:
    """Each cost as a multiple of what it is at its smallest size, beside a line for what is linear."""
    lines = {}
    for cost in costs:
        points = [(size, middle) for size, middle in cost.points() if middle.median > 0]
        if len(points) > 1:
            lines[f"{cost.name} ({cost.slope():.2f})"] = [(size, middle.times(1 / points[0][1].median)) for size, middle in points]
    return charts.lines(dimension, f"times the cost of the smallest number, by {costs[0].size}; grey is linear", lines)
