"""How long to wait before asking again."""

import random


class Backoff:
    """Exponential, with jitter, so that many servers do not come back at the same moment.

    A failing list and a failing watch, one after the other, stay below two requests a second from the first. The
    last is short: together with the deadline of a request it is how long recovery may take.
    """

    FIRST = 2.0
    LAST = 5.0

    def __init__(self) -> None:
        self._ceiling = self.FIRST

    def reset(self) -> None:
        """After success."""
        self._ceiling = self.FIRST

    def next(self, at_least: float = 0) -> float:
        """Seconds to wait after one more failure; never less than what the server asked for."""
        delay = random.uniform(self._ceiling / 2, self._ceiling)  # noqa: S311 - spreads load, protects nothing
        self._ceiling = min(self._ceiling * 2, self.LAST)
        return max(delay, at_least)
