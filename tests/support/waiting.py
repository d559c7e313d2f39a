"""Waiting for something to become true, with a deadline that says what was waited for and what was seen last."""

import time
from collections.abc import Callable
from typing import TypeVar

Seen = TypeVar("Seen")

EVERY = 0.05
"""Seconds between two looks."""
DEADLINE = 60.0
"""Seconds after which a wait fails: far more than anything here takes, as the machine may be busy."""


def wait_until(what: str, look: Callable[[], Seen], deadline: float = DEADLINE) -> Seen:
    """Looks until what is seen is true, and returns it."""
    end = time.monotonic() + deadline
    while not (seen := look()):
        assert time.monotonic() < end, f"waited {deadline:.0f} s for {what}; seen last: {seen!r}"
        time.sleep(EVERY)
    return seen
