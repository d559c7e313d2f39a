"""Failed calls: which of them to tell, so that a fast client does not drown its log.

Pure: it must not know the log nor the clock, nor what the errors mean.
"""

from greeting.client.message import Message

QUIET = 0.9
"""Seconds from one line on failures to the next at least, so that who calls once a second sees each."""


class Failures:
    """Decides which failures to tell: the first at once, then at most one line a second with a count.

    When calls work again it says so, but only if the failure was told: a server that fails every other call
    must not fill the log.
    """

    def __init__(self) -> None:
        self._failed = 0
        self._since = 0.0
        self._untold = 0
        self._told_at = float("-inf")
        self._open = False

    def failed(self, now: float, status: str, details: str, remedy: str | None) -> Message | None:
        """Take note of a failed call; return what to say now, if anything."""
        if not self._failed:
            self._since = now
        self._failed += 1
        self._untold += 1
        if now - self._told_at < QUIET:
            return None
        facts = {"status": status, "details": " ".join(details.split()), "calls": self._untold}
        self._told_at, self._untold, self._open = now, 0, True
        return Message("call failed", facts | ({"mend": remedy} if remedy else {}), warning=True)

    def worked(self, now: float) -> Message | None:
        """Take note of a call that worked; return what to say now, if anything."""
        if not self._open:
            return None
        message = Message(
            "calls work again", {"failed": self._failed, "seconds": round(now - self._since, 1)}
        )
        self._failed, self._untold, self._open = 0, 0, False
        return message
