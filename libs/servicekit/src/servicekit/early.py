"""Remembers a SIGTERM or SIGINT that arrives while a program is still importing; `lifecycle.run` then ends it.

The kernel ignores signals without a handler for PID 1 of a container (pid_namespaces(7)), and importing gRPC takes a
second on a busy machine. It must not import anything beyond the standard library's smallest modules.
"""

import os
import signal
from types import FrameType

_remembered: list[signal.Signals] = []


def remember_signals() -> None:
    """Installs the handlers: the first statement of a `__main__` module, before the other imports."""
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, _remember)


def remembered_signal() -> signal.Signals | None:
    """Returns the signal that arrived since `remember_signals`, None if there was none."""
    return _remembered[0] if _remembered else None


def _remember(number: int, _frame: FrameType | None) -> None:
    if _remembered:  # a second signal ends the program at once, as it does later
        os._exit(128 + number)
    _remembered.append(signal.Signals(number))
