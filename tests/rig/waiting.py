"""Waiting for a condition under a deadline: the only way that anything here waits."""

from __future__ import annotations

import os
import time
from typing import Callable, TypeVar

T = TypeVar("T")

# Generous on purpose: it bounds a failure, and never decides a success.
DEADLINE = float(os.environ.get("TESTS_DEADLINE", "30"))


def until(condition: Callable[[], T], what: str, deadline: float = DEADLINE, context: Callable[[], str] = str) -> T:
    """The first true result of `condition`; fails with `what` (and the text that `context` gives) after `deadline` s."""
    end = time.monotonic() + deadline
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise AssertionError(f"after {deadline:g} s still not: {what}\n{context()}")
        time.sleep(0.01)
