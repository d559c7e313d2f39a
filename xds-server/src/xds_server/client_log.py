"""Log lines that clients cause. They are rate-limited, so that no client can fill the log or hide other clients."""

import ipaddress
import logging
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import structlog

from servicekit.log_limits import LogLimiter

log = structlog.get_logger()

BURST = 20
"""Lines of one kind that one address may cause at once."""
PER_SECOND = 1.0
"""Lines of one kind that one address may cause for long."""


def address(peer: str) -> str:
    """The address in a peer as grpc spells it, without the port: ``ipv4:10.0.0.1`` of ``ipv4:10.0.0.1:4711``."""
    scheme, _, rest = peer.partition(":")
    return f"{scheme}:{rest.rpartition(':')[0]}" if scheme in ("ipv4", "ipv6") else peer


def ip(peer: str) -> str:
    """The IP address in a peer, in canonical form; empty if it has none."""
    _, _, host = unquote(address(peer)).partition(":")
    try:
        found = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return ""
    return str(getattr(found, "ipv4_mapped", None) or found)


class ClientLog:
    """Writes lines about clients, and drops those over the rate of their kind and address.

    The first line that is written after dropped ones says how many were dropped (``suppressed``).
    """

    def __init__(self, limiter: LogLimiter | None = None, facts: Mapping[str, Any] | None = None) -> None:
        self._limiter = limiter or LogLimiter(burst=BURST, per_second=PER_SECOND)
        self._facts = facts or {}

    @property
    def debugging(self) -> bool:
        """Whether lines for debugging are written at all."""
        return bool(log.is_enabled_for(logging.DEBUG))

    def bind(self, **facts: Any) -> "ClientLog":
        """The same with more facts; ``peer`` is the client's address."""
        return ClientLog(self._limiter, {**self._facts, **facts})

    def debug(self, event: str, **facts: Any) -> None:
        """Writes a line for debugging, which is never dropped."""
        log.debug(event, **self._facts, **facts)

    def info(self, event: str, **facts: Any) -> None:
        """Writes a line unless there were too many."""
        self._write(log.info, event, facts)

    def warning(self, event: str, **facts: Any) -> None:
        """Writes a warning unless there were too many."""
        self._write(log.warning, event, facts)

    def _write(self, write: Any, event: str, facts: dict[str, Any]) -> None:
        suppressed = self._limiter.allow(f"{event} {address(self._facts.get('peer', ''))}")
        if suppressed is not None:
            write(event, **self._facts, **facts, **({"suppressed": suppressed} if suppressed else {}))
