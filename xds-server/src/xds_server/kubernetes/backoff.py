"""How long to wait before the next attempt."""

import random


class Backoff:
    """Exponential backoff with jitter, so that many servers do not retry at the same moment.

    Args:
        first: The longest wait after the first failure, in seconds.
        last: The longest wait after any.
    """

    def __init__(self, first: float, last: float) -> None:
        self._first = self._ceiling = first
        self._last = last

    def reset(self) -> None:
        """Starts over after a success."""
        self._ceiling = self._first

    def next(self, at_least: float = 0) -> float:
        """Returns the seconds to wait after one more failure; never less than what the server asked for."""
        delay = random.uniform(self._ceiling / 2, self._ceiling)  # noqa: S311 - spreads load, protects nothing
        self._ceiling = min(self._ceiling * 2, self._last)
        return max(delay, at_least)
