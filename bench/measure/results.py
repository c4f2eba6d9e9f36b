"""What was measured, kept by work and server, with medians and spreads; and its file. Nothing is judged here."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass, field
from pathlib import Path


# A row whose rounds lie further from their median, as a share of it, is measured once more.
STEADY = 0.2


@dataclass(frozen=True)
class Middle:
    """A median, and how far the rounds lie apart."""

    median: float
    low: float
    high: float

    def times(self, factor: float) -> Middle:
        """In another unit."""
        return Middle(self.median * factor, self.low * factor, self.high * factor)

    @property
    def spread(self) -> float:
        """The larger distance of a round from the median, as a share of it."""
        return max(self.high - self.median, self.median - self.low) / self.median if self.median else 0.0


@dataclass
class Results:
    """All that a run found out."""

    # What the machine is and which versions ran, in the order of the header.
    header: dict[str, str] = field(default_factory=dict)
    # rounds[work][server]: one dictionary of figures for each round.
    rounds: dict[str, dict[str, list[dict[str, float]]]] = field(default_factory=dict)
    # failures[work][server]: why there are no figures.
    failures: dict[str, dict[str, str]] = field(default_factory=dict)
    # special[name]: rows of a measurement of its own kind.
    special: dict[str, list[dict[str, float | str]]] = field(default_factory=dict)

    def add(self, work: str, server: str, figures: dict[str, float]) -> None:
        """One more round."""
        self.rounds.setdefault(work, {}).setdefault(server, []).append(figures)

    def fail(self, work: str, server: str, why: str) -> None:
        """A server that cannot do a work."""
        self.failures.setdefault(work, {})[server] = why

    def forget(self, works: list[str], servers: list[str]) -> None:
        """Drops what is about to be measured anew."""
        for kept in (self.rounds, self.failures):
            for work in set(works) & set(kept):
                for server in servers:
                    kept[work].pop(server, None)  # type: ignore[attr-defined]

    def unsteady(self, work: str, server: str) -> bool:
        """Whether the rounds of a row lie far apart in processor time."""
        middle = self.get(work, server, "cpu")
        return middle is not None and middle.spread > STEADY

    def keep_steadier(self, work: str, again: Results) -> None:
        """Of rows that were measured once more, takes those whose rounds lie closer together than before."""
        for server, rounds in again.rounds.get(work, {}).items():
            before, now = self.get(work, server, "cpu"), again.get(work, server, "cpu")
            if before and now and len(rounds) >= len(self.rounds[work][server]) and now.spread < before.spread:
                self.rounds[work][server] = rounds

    def get(self, work: str, server: str, figure: str) -> Middle | None:
        """The median of a figure, or None where there is none."""
        values = [one[figure] for one in self.rounds.get(work, {}).get(server, [])]
        return Middle(statistics.median(values), min(values), max(values)) if values else None

    def median(self, work: str, server: str, figure: str) -> float | None:
        """The same without its spread."""
        middle = self.get(work, server, figure)
        return middle.median if middle else None

    def row(self, special: str, **match: str) -> dict[str, float | str] | None:
        """The first row of a special measurement that has these values."""
        for row in self.special.get(special, []):
            if all(row.get(key) == value for key, value in match.items()):
                return row
        return None

    def save(self, path: Path) -> None:
        """Writes everything as JSON."""
        text = json.dumps(self.__dict__, indent=1)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    @classmethod
    def load(cls, path: Path) -> Results:
        """Reads what `save` wrote."""
        return cls(**json.loads(path.read_text()))
