"""Something to say in the log, so that pure code can decide what to say. It must not know the log."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Message:
    """One line of the log."""

    event: str
    facts: dict[str, Any] = field(default_factory=dict)
    warning: bool = False
