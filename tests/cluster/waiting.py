"""Waiting for something to become true, with a deadline that says what it waited for and what it saw last."""

import time
from collections.abc import Callable
from typing import TypeVar

Seen = TypeVar("Seen")

EVERY = 0.2
"""Seconds between two looks."""


def until(
    what: str, look: Callable[[], Seen], holds: Callable[[Seen], object], *, seconds: float = 60
) -> Seen:
    """Looks until what is seen holds, and returns it."""
    deadline = time.monotonic() + seconds
    while True:
        seen = look()
        if holds(seen):
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:.0f} s for {what}; seen at last: {seen!r}")
        time.sleep(EVERY)


def hold(seconds: float) -> None:
    """Lets a fault last: there is nothing to wait for but time itself."""
    time.sleep(seconds)
