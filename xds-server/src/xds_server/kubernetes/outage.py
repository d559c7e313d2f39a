"""Logs the outages of one collection: when one begins, a reminder now and then, and when it is over."""

import threading
import time

import structlog

log = structlog.get_logger()


class Outage:
    """Takes the outcomes of requests of several kinds: an outage lasts while any of them fails. Thread-safe.

    Args:
        path: Of the collection, for the log.
        remind: Seconds between two reminders.
    """

    def __init__(self, path: str, remind: float) -> None:
        self._path = path
        self._remind = remind
        self._lock = threading.Lock()
        self._failing: set[str] = set()
        self._effect = "nothing is served until everything has been listed"
        self._since = self._reminded = 0.0

    def listed(self) -> None:
        """Takes note that the collection is known: from now on an outage leaves the last known state."""
        self._effect = "serving the last known state"

    def includes(self, request: str) -> bool:
        """Returns whether requests of this kind failed last."""
        return request in self._failing

    def failed(self, request: str, reason: str, hint: str | None = None) -> None:
        """Takes note that a request of this kind failed."""
        with self._lock:
            now = time.monotonic()
            if not self._failing:
                self._since = self._reminded = now
                event = f"Kubernetes API request failed; {self._effect}"
                log.warning(
                    event,
                    path=self._path,
                    request=request,
                    reason=reason,
                    **({"hint": hint} if hint else {}),
                )
            elif now - self._reminded >= self._remind:
                self._reminded = now
                event = f"Kubernetes API requests still fail; {self._effect}"
                log.warning(
                    event,
                    path=self._path,
                    request=request,
                    reason=reason,
                    seconds=round(now - self._since),
                )
            self._failing.add(request)

    def answered(self, request: str) -> None:
        """Takes note that requests of this kind are answered."""
        with self._lock:
            if request not in self._failing:
                return
            self._failing.remove(request)
            if not self._failing:
                seconds = round(time.monotonic() - self._since)
                log.info("Kubernetes API answers again", path=self._path, seconds=seconds)
