"""The log: one line an event on stdout, as JSON or as text for a person at a terminal.

Code logs with `structlog.get_logger()`: the event is a short English sentence, facts are keyword
arguments. The records of the standard library's `logging` come out the same way.
"""

import logging
import os
import sys
from typing import Literal

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from servicekit.line_writer import LineWriter

CHATTY = ("aiohttp", "asyncio", "grpc", "urllib3", "watchfiles")
"""Libraries that log each of their steps; only their warnings matter to whoever runs a service."""


def configure(log_format: Literal["auto", "text", "json"], log_level: str) -> None:
    """Sets up the log, once, at the start of `main`."""
    # None if the program was started with stdout closed: its number may belong to a socket by now.
    stdout = sys.stdout
    terminal = stdout is not None and stdout.isatty()
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
    handler = _Handler(stdout.fileno()) if stdout is not None else logging.NullHandler()
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
    """Formats records where they are logged, as their values may change later, and leaves the writing to a thread.

    `logging` itself flushes and closes its handlers when the program ends.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._writer = LineWriter(descriptor, self._notice)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - a thread that serves everybody may be the one that logs
            self.handleError(record)
        else:
            self._writer.write(line)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
        super().close()

    def _notice(self, lines: int) -> str:
        text = "%d log lines were dropped: stdout was read too slowly or could not be written"
        facts = {"name": __name__, "levelno": logging.WARNING, "levelname": "WARNING"}
        return self.format(logging.makeLogRecord(facts | {"msg": text, "args": (lines,)}))


def _timestamp_level_event_first(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    first = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}
    return {**first, **event}
