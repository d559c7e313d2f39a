"""One scenario: a fault under load, with progress on the console and a row of the table at its end."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from tests.chaos.load import LEAST, Load

PRINT_EVERY = 5.0
"""Seconds."""


@dataclass
class Row:
    """A scenario's row of the table."""

    part: str
    """The folder of the scenario; each has its own table."""
    name: str
    sent: int = 0
    failed: int = 0
    recovery: float | None = None
    notes: list[str] = field(default_factory=list)

    def cells(self) -> list[str]:
        recovery = "" if self.recovery is None else f"{self.recovery:.2f} s"
        return [self.name, f"{self.sent:,}", str(self.failed), recovery, "; ".join(self.notes)]


HEAD = ("scenario", "requests", "failed", "recovery", "measured from → to; notes")


class Console:
    """Prints progress to the stdout from before pytest captured it."""

    def __init__(self) -> None:
        self._stdout = os.dup(1)

    def print(self, line: str) -> None:
        os.write(self._stdout, f"{line}\n".encode())


class Scenario:
    """Prints progress every few seconds, and asserts at its end that no request has failed."""

    def __init__(self, console: Console, row: Row, load: Load) -> None:
        self.row = row
        self._console = console
        self._load = load
        self._doing = "steady load"
        self._is_lost: Callable[[dict[str, Any]], bool] = lambda _failure: False
        self._began = time.monotonic()
        self._ended = threading.Event()
        self._printer = threading.Thread(target=self._print_steadily, daemon=True)

    def __enter__(self) -> Self:
        self._console.print(f"\n== {self.row.name}")
        self._printer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.now("the last calls")
                self._finish()
        finally:
            self._ended.set()
            self._printer.join()
            self.row.sent, self.row.failed = self._load.sent, len(self._load.failures)
            self._print()

    def now(self, doing: str) -> None:
        """Sets and prints the current step."""
        self._doing = doing
        self._print()

    def recovered(self, seconds: float, counted: str) -> None:
        """Records the recovery time and what it is measured from and to; the longest of several counts."""
        self.row.recovery = max(seconds, self.row.recovery or 0.0)
        self.row.notes = [counted, *(note for note in self.row.notes if note != counted)]

    def lose(self, is_lost: Callable[[dict[str, Any]], bool]) -> None:
        """Allows failures that cannot be prevented, such as of calls in flight to a node that is cut off."""
        self._is_lost = is_lost

    def note(self, text: str) -> None:
        """Adds a note to the row."""
        self.row.notes.append(text)

    def _finish(self) -> None:
        rate = self._load.end()
        failures = [failure for failure in self._load.failures if not self._is_lost(failure)]
        assert not failures, f"{len(failures)} of {self._load.sent} requests failed, such as {failures[:5]}"
        assert rate >= LEAST, f"only {rate:.0f} requests a second: too little load"

    def _print_steadily(self) -> None:
        while not self._ended.wait(PRINT_EVERY):
            self._print()

    def _print(self) -> None:
        seconds = time.monotonic() - self._began
        sent, failed = self._load.sent, len(self._load.failures)
        self._console.print(f"   {seconds:4.0f} s  {sent:7,} requests, {failed} failed   {self._doing}")
