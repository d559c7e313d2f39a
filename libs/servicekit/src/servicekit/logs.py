"""The log: one line an event on stdout, as JSON or as text for a person at a terminal.

Code logs with `structlog.get_logger()`: the event is a short English sentence, facts are keyword
arguments. The records of the standard library's `logging` come out the same way.
It must not know what is logged.
"""

import logging
import os
import select
import sys
import time
from typing import Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

PATIENCE = 1.0
"""Seconds that lines wait for a reader who does not keep up, before they are dropped."""
CHATTY = ("aiohttp", "asyncio", "grpc", "urllib3", "watchfiles")
"""Libraries that tell each of their steps; only their warnings are of interest to who runs a service."""


def configure(log_format: Literal["auto", "text", "json"], log_level: str) -> None:
    """Set up the log, once, at the start of `main`."""
    terminal = _stdout() is not None and sys.stdout.isatty()
    timestamp: Processor
    renderer: list[Processor]
    if log_format == "text" or (log_format == "auto" and terminal):
        timestamp = structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False)
        renderer = [
            structlog.dev.ConsoleRenderer(
                colors=terminal and "NO_COLOR" not in os.environ,
                sort_keys=False,
                pad_event_to=0,
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
    else:
        timestamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
        renderer = [
            structlog.processors.format_exc_info,
            _timestamp_level_event_first,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        timestamp,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(log_level),
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    handler = _Handler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    logging.root.handlers = [handler]
    logging.root.setLevel(log_level)
    for library in CHATTY:
        logging.getLogger(library).setLevel(max(logging.WARNING, logging.root.level))


class _Handler(logging.Handler):
    """Writes lines to stdout and drops those that cannot be written.

    A reader that went away (EPIPE) or does not keep up (a full pipe), or a full disk (ENOSPC), must not stop a
    service, and there is nowhere left to report it. Nothing is buffered: Python would exit with code 120 when
    the last flush fails.
    """

    def __init__(self) -> None:
        super().__init__()
        self._patience = PATIENCE
        self._last = time.monotonic()
        self._is_cut = False

    def emit(self, record: logging.LogRecord) -> None:
        stdout = _stdout()
        if stdout is None:
            return
        try:
            line = (self.format(record) + "\n").encode(errors="backslashreplace")
        except Exception:  # noqa: BLE001 - whoever logs may be the thread that serves everybody
            self.handleError(record)
            return
        # What is left of a line that could be written in part only must not be taken for the beginning of the next.
        rest = b"\n" + line if self._is_cut else line
        whole = len(rest)
        try:
            while rest and self._takes_more(stdout):
                # So much a pipe takes without waiting, once it takes something.
                rest = rest[os.write(stdout.fileno(), rest[: select.PIPE_BUF]) :]
        except (OSError, ValueError):
            return
        finally:
            self._is_cut = (self._is_cut and len(rest) == whole) or 0 < len(rest) < whole

    def _takes_more(self, stdout: TextIO) -> bool:
        """Waits for the reader, as long as there is patience; what is used up comes back a hundred times slower."""
        now = time.monotonic()
        self._patience = min(PATIENCE, self._patience + (now - self._last) / 100)
        _, ready, _ = select.select([], [stdout], [], self._patience)
        self._last = time.monotonic()
        self._patience = max(0.0, self._patience - (self._last - now))
        return bool(ready)


def _stdout() -> TextIO | None:
    """Return stdout, None if the program was started with it closed: its number may belong to a socket by now."""
    return sys.stdout


def _timestamp_level_event_first(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    first = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}
    return {**first, **event}
