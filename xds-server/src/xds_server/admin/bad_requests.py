"""What requests that are not HTTP write into the log: one short line each, and few of them."""

import logging

from aiohttp.http_exceptions import HttpProcessingError

from servicekit.log_limits import LogLimiter

BURST = 20
"""Lines at once."""
PER_SECOND = 1.0
"""Lines for long."""


class _BadRequests(logging.Filter):
    def __init__(self) -> None:
        super().__init__()
        self._limiter = LogLimiter(BURST, PER_SECOND)

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, HttpProcessingError):
            return True
        if self._limiter.allow("") is None:
            return False
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.msg, record.args = "bad HTTP request: %s", (type(error).__name__,)
        record.exc_info = None
        return True


class _Limited(logging.Filter):
    def __init__(self) -> None:
        super().__init__()
        self._limiter = LogLimiter(BURST, PER_SECOND)

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno < logging.WARNING or self._limiter.allow("") is not None


def limit_asyncio() -> None:
    """Limits asyncio's own lines: it writes one whenever a connection can't be accepted, thousands a second."""
    logging.getLogger("asyncio").filters = [_Limited()]


def logger() -> logging.Logger:
    """The logger for aiohttp's server, which writes a traceback for each bad request otherwise."""
    found = logging.getLogger("aiohttp.server.admin")
    found.filters = [_BadRequests()]
    return found
