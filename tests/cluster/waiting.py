"""Waiting for a condition, with a deadline whose error says what was awaited and the last observed value."""

import time
from collections.abc import Callable
from typing import TypeVar

Seen = TypeVar("Seen")

EVERY = 0.2
"""Seconds between two observations."""


def until(
    what: str, look: Callable[[], Seen], holds: Callable[[Seen], object], *, seconds: float = 60
) -> Seen:
    """Observes a value until it satisfies the condition, and returns it."""
    deadline = time.monotonic() + seconds
    while True:
        seen = look()
        if holds(seen):
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:.0f} s for {what}; last seen: {seen!r}")
        time.sleep(EVERY)


def hold(seconds: float) -> None:
    """Sleeps while a fault lasts."""
    time.sleep(seconds)
