"""Whether a series of samples grows: its slope by Theil and Sen, with Sen's 95 % interval. Pure arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median

# Of the normal distribution, for 95 % on both sides.
_Z = 1.96
# The fewest points that a slope is fitted to.
LEAST = 6

Point = tuple[float, float]


@dataclass(frozen=True)
class Slope:
    """Growth per second: the median of the slopes of all pairs, and the interval that holds the true one in 95 of 100
    runs. It is infinite on both sides where the points are too few."""

    middle: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """`flat` when no growth is a possible value, `grows` and `shrinks` when it is not, `-` when nobody can tell."""
        if math.isinf(self.low) or math.isinf(self.high):
            return "-"
        return "grows" if self.low > 0 else "shrinks" if self.high < 0 else "flat"


def fit(points: list[Point]) -> Slope:
    """The slope of points `(seconds, value)`. One outlier in four does not move it (Sen, 1968)."""
    slopes = sorted(
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for number, earlier in enumerate(points)
        for later in points[number + 1 :]
        if later[0] != earlier[0]
    )
    if len(points) < LEAST or not slopes:
        return Slope(median(slopes) if slopes else 0.0, -math.inf, math.inf)
    # The variance of Kendall's score, less what equal values take from it.
    ties = {value: 0 for _, value in points}
    for _, value in points:
        ties[value] += 1
    n = len(points)
    variance = (n * (n - 1) * (2 * n + 5) - sum(t * (t - 1) * (2 * t + 5) for t in ties.values())) / 18
    reach = _Z * math.sqrt(variance)
    low = max(0, math.floor((len(slopes) - reach) / 2))
    high = min(len(slopes) - 1, math.ceil((len(slopes) + reach) / 2))
    return Slope(median(slopes), slopes[low], slopes[high])


def medians(points: list[Point], every: float) -> list[Point]:
    """The median of each stretch of `every` seconds. Neighbouring samples are alike, and what a reload does to memory
    comes back with each: a stretch from one reload to the next is one independent point."""
    stretches: dict[int, list[Point]] = {}
    for point in points:
        stretches.setdefault(int(point[0] // every), []).append(point)
    return [
        (median(moment for moment, _ in stretch), median(value for _, value in stretch))
        for _, stretch in sorted(stretches.items())
    ]
