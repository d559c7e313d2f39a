"""A log line as a value, so that pure code can decide what is logged."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Message:
    """One line of the log."""

    event: str
    facts: dict[str, Any] = field(default_factory=dict)
    warning: bool = False
