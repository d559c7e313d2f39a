"""One scenario: a fault under load, told while it lasts and as a row of the table at its end."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from tests.chaos.load import LEAST, Load

TELL_EVERY = 5.0


@dataclass
class Row:
    """What the table says of a scenario."""

    part: str
    """Where it ran: every part has a table of its own."""
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
    """Where progress is told, whatever pytest captures: a copy of its stdout from before."""

    def __init__(self) -> None:
        self._stdout = os.dup(1)

    def tell(self, line: str) -> None:
        os.write(self._stdout, f"{line}\n".encode())


class Scenario:
    """Tells what goes on every few seconds; at its end it says whether all requests were answered."""

    def __init__(self, console: Console, row: Row, load: Load) -> None:
        self.row = row
        self._console = console
        self._load = load
        self._doing = "steady load"
        self._is_lost: Callable[[dict[str, Any]], bool] = lambda _failure: False
        self._began = time.monotonic()
        self._ended = threading.Event()
        self._teller = threading.Thread(target=self._tell_steadily, daemon=True)

    def __enter__(self) -> Self:
        self._console.tell(f"\n== {self.row.name}")
        self._teller.start()
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
            self._teller.join()
            self.row.sent, self.row.failed = self._load.sent, len(self._load.failures)
            self._tell()

    def now(self, doing: str) -> None:
        """Prints what is being done to the mesh."""
        self._doing = doing
        self._tell()

    def recovered(self, seconds: float, counted: str) -> None:
        """Notes how long recovery took, and from what to what that is; of several recoveries the longest counts."""
        self.row.recovery = max(seconds, self.row.recovery or 0.0)
        self.row.notes = [counted, *(note for note in self.row.notes if note != counted)]

    def lose(self, is_lost: Callable[[dict[str, Any]], bool]) -> None:
        """Allows failures that nobody can prevent, such as of a call whose answer is on a cable that was cut."""
        self._is_lost = is_lost

    def note(self, text: str) -> None:
        """Notes what else was seen."""
        self.row.notes.append(text)

    def _finish(self) -> None:
        rate = self._load.end()
        failures = [failure for failure in self._load.failures if not self._is_lost(failure)]
        assert not failures, f"{len(failures)} of {self._load.sent} requests failed, such as {failures[:5]}"
        assert rate >= LEAST, f"only {rate:.0f} requests a second: that was no load"

    def _tell_steadily(self) -> None:
        while not self._ended.wait(TELL_EVERY):
            self._tell()

    def _tell(self) -> None:
        seconds = time.monotonic() - self._began
        sent, failed = self._load.sent, len(self._load.failures)
        self._console.tell(f"   {seconds:4.0f} s  {sent:7,} requests, {failed} failed   {self._doing}")
