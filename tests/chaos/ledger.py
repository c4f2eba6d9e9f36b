"""What a run did to the server, and when: what may be lost follows from it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from .clients import Attempt


class Loss(enum.Enum):
    """What an event may cost."""

    NOTHING = "nothing"
    # The requests that a killed process held, or jobs run again.
    HELD = "what the killed process held"
    # Requests that need the disk get an answer that says so.
    REFUSALS = "refusals of what needs the disk"


@dataclass(frozen=True)
class Kill:
    """A process that died of what the run did. It had it in [`before`, `after`], in seconds of the monotonic clock."""

    what: str
    pid: int
    before: float
    after: float


@dataclass(frozen=True)
class Excuse:
    """A time in which requests that use the disk may be refused, or broken off."""

    begun: float
    ended: float


@dataclass
class Ledger:
    """Of one round."""

    kills: list[Kill] = field(default_factory=list)
    excuses: list[Excuse] = field(default_factory=list)
    # Requests that events sent themselves, and that were not answered rightly.
    others: list[Attempt] = field(default_factory=list)

    def killed(self, *what: str) -> list[Kill]:
        """Kills of processes of these kinds."""
        return [kill for kill in self.kills if kill.what in what]
