"""How much clients may hold: each address, and all together. Pure but for its clock.

Every stream and every subscribed name costs memory, and anybody who reaches the port can open streams. The bounds keep
the server within the memory of its Deployment. An address that holds little is always served until the last reserve is
used, so clients that take much do not lock out the others.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from xds_server.errors import ExhaustedError


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds. A stream costs some 45 KiB, a name some 2 KiB: all together fit into 512 MiB.

    Attributes:
        streams: Of all clients together.
        streams_of_peer: Of one address.
        names: Of all clients together.
        names_of_peer: Of one address.
        reserved_names: The part of ``names`` that is left to addresses with few names.
        few_names: How many names are few.
        reserved_streams: The part of ``streams`` that is left to addresses with few streams.
        few_streams: How many streams are few.
        changed_names: Of one address at once: names that it subscribes to or leaves. A client does that when it starts.
        changed_names_per_second: Likewise, for long.
    """

    streams: int = 6_000
    streams_of_peer: int = 5_500
    reserved_streams: int = 500
    few_streams: int = 50
    changed_names: int = 200_000
    changed_names_per_second: int = 2_000
    names: int = 60_000
    names_of_peer: int = 25_000
    reserved_names: int = 25_000
    few_names: int = 1_000


class Usage:
    """What is held at present."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._changes: dict[str, tuple[float, float]] = {}
        self._streams = _Count()
        self._names = _Count()

    def open(self, peer: str) -> "Allowance":
        """Counts one more stream of an address.

        Raises:
            ExhaustedError: It would be one too many.
        """
        limits = self._limits
        has_few = self._streams.of(peer) < limits.few_streams
        allowed = limits.streams if has_few else limits.streams - limits.reserved_streams
        if self._streams.total >= allowed:
            whom = "" if has_few else f" for addresses with {limits.few_streams} or more"
            raise ExhaustedError(f"{allowed} streams are open, as many as one server allows{whom}")
        if self._streams.of(peer) >= limits.streams_of_peer:
            raise ExhaustedError(
                f"{peer} has {limits.streams_of_peer} streams open, as many as one address may"
            )
        self._streams.add(peer, 1)
        return Allowance(self, peer)

    def close(self, peer: str) -> None:
        """Counts one stream of an address less."""
        self._streams.add(peer, -1)

    def change_names(self, peer: str, number: int) -> None:
        """Counts names that an address subscribes to or leaves.

        Raises:
            ExhaustedError: There are too many in a short time.
        """
        now, limits = self._clock(), self._limits
        spent, at = self._changes.get(peer, (0.0, now))
        spent = max(0.0, spent - (now - at) * limits.changed_names_per_second) + number
        if spent > limits.changed_names:
            raise ExhaustedError(
                f"{peer} changes its names too often; it may change {limits.changed_names} at once"
            )
        if len(self._changes) > limits.streams:
            self._changes = {each: found for each, found in self._changes.items() if self._streams.of(each)}
        self._changes[peer] = spent, now

    def add_names(self, peer: str, number: int) -> None:
        """Counts names of an address; a negative number gives them back.

        Raises:
            ExhaustedError: They would be too many; nothing is counted.
        """
        if number > 0:
            self._check_names(peer, self._names.of(peer) + number, self._names.total + number)
        self._names.add(peer, number)

    def _check_names(self, peer: str, of_peer: int, of_all: int) -> None:
        limits = self._limits
        if of_peer > limits.names_of_peer:
            raise ExhaustedError(
                f"{peer} would subscribe to {of_peer} names, over the bound of {limits.names_of_peer} for one address"
            )
        has_few = of_peer <= limits.few_names
        allowed = limits.names if has_few else limits.names - limits.reserved_names
        if of_all > allowed:
            whom = "" if has_few else f" for addresses with more than {limits.few_names}"
            raise ExhaustedError(
                f"all clients together would subscribe to {of_all} names, over the bound of {allowed}{whom}"
            )


class _Count:
    """A number for each address that has one, and their sum."""

    def __init__(self) -> None:
        self.total = 0
        self._of: dict[str, int] = {}

    def of(self, peer: str) -> int:
        return self._of.get(peer, 0)

    def add(self, peer: str, number: int) -> None:
        self.total += number
        self._of[peer] = self.of(peer) + number
        if not self._of[peer]:
            del self._of[peer]


class Allowance:
    """What one stream holds."""

    def __init__(self, usage: Usage, peer: str) -> None:
        self._usage = usage
        self._peer = peer
        self._names = 0

    def hold(self, names: int) -> None:
        """Sets how many names the stream subscribes to.

        Raises:
            ExhaustedError: They are too many; the number stays as it was.
        """
        self._usage.add_names(self._peer, names - self._names)
        self._names = names

    def change(self, names: int) -> None:
        """Counts names that the stream subscribes to or leaves.

        Raises:
            ExhaustedError: There are too many in a short time.
        """
        self._usage.change_names(self._peer, names)

    def close(self) -> None:
        """Gives everything back, at the end of the stream."""
        self.hold(0)
        self._usage.close(self._peer)
