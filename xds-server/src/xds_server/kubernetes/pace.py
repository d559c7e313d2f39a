"""How long to wait after a watch has ended, by how it ended. Pure: must not know what a watch delivers."""

from xds_server.kubernetes.backoff import Backoff
from xds_server.kubernetes.limits import Limits


class WatchPace:
    """The waits between the watches of one collection, in seconds.

    Args:
        limits: The longest waits, and what counts as healthy and as settled.

    Attributes:
        failures: For watches that failed before they delivered anything.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.failures = Backoff(limits.first_backoff, limits.last_backoff)
        self._expiries = Backoff(limits.first_backoff, limits.last_backoff)
        self._brief: Backoff | None = None
        self._began = 0.0
        self._since: float | None = None

    def begin(self, now: float) -> None:
        """Takes note that a watch begins."""
        self._began = now
        if self._since is None:
            self._since = now

    def expired(self, now: float) -> float:
        """Returns the wait before the next list, which is due because the version expired.

        That is normal for a version that was not used for long: then the list is due at once.
        """
        since, self._since = self._since, None
        if since is not None and now - since < self._limits.watch_settled:
            return self._expiries.next()
        self._expiries.reset()
        return 0

    def worked(self, now: float, *, healthy: bool) -> float:
        """Returns the wait after a watch that was healthy or delivered something, however it ended.

        It may go on at once. If the next ones end early as well, they wait longer and longer.
        """
        self.failures.reset()
        gap = max(0, self._began + self._limits.watch_gap - now)
        if healthy:
            self._brief = None
        elif self._brief is None:
            self._brief = Backoff(self._limits.watch_backoff / 4, self._limits.watch_backoff)
        else:
            return self._brief.next(at_least=gap)
        return gap
