"""Failed calls: which of them are logged, so that a fast client does not fill its log. Pure."""

from greeting.client.message import Message

MIN_SECONDS = 0.9
"""Between two lines about failures. Less than 1, so that a client that calls once a second logs each."""


class Failures:
    """Decides which failures are logged: the first at once, then at most one line a second, with a count.

    That calls work again is logged only if a failure since the last success was: a server that fails every other
    call must not fill the log. A failure that was not logged counts among the `calls` of the next line.
    """

    def __init__(self) -> None:
        self._failed = 0
        self._since = 0.0
        self._unreported = 0
        self._reported_at = float("-inf")
        self._open = False

    def failed(self, now: float, status: str, details: str, hint: str | None) -> Message | None:
        """Counts a failed call; returns the message to log now, if any."""
        if not self._failed:
            self._since = now
        self._failed += 1
        self._unreported += 1
        if now - self._reported_at < MIN_SECONDS:
            return None
        facts = {"status": status, "details": " ".join(details.split()), "calls": self._unreported}
        self._reported_at, self._unreported, self._open = now, 0, True
        return Message("call failed", facts | ({"hint": hint} if hint else {}), warning=True)

    def succeeded(self, now: float) -> Message | None:
        """Counts a call that succeeded; returns the message to log now, if any."""
        failed, self._failed = self._failed, 0
        if not self._open:
            return None
        self._unreported, self._open = 0, False
        return Message("calls work again", {"failed": failed, "seconds": round(now - self._since, 1)})
