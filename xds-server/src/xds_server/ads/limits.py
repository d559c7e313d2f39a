"""How much clients may hold: each address, and all together. Pure.

Every stream and every subscribed name costs memory, and anybody who reaches the port can open streams. The bounds keep
the server within the memory of its Deployment. An address that holds little is always served until the last reserve is
used, so clients that take much do not lock out the others.
"""

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
    """

    streams: int = 6_000
    streams_of_peer: int = 5_500
    names: int = 60_000
    names_of_peer: int = 25_000
    reserved_names: int = 25_000
    few_names: int = 1_000


class Usage:
    """What is held at present."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._streams = _Count()
        self._names = _Count()

    def open(self, peer: str) -> "Allowance":
        """Counts one more stream of an address.

        Raises:
            ExhaustedError: It would be one too many.
        """
        limits = self._limits
        if self._streams.total >= limits.streams:
            raise ExhaustedError(f"{limits.streams} streams are open, as many as one server allows")
        if self._streams.of(peer) >= limits.streams_of_peer:
            raise ExhaustedError(
                f"{peer} has {limits.streams_of_peer} streams open, as many as one address may"
            )
        self._streams.add(peer, 1)
        return Allowance(self, peer)

    def close(self, peer: str) -> None:
        """Counts one stream of an address less."""
        self._streams.add(peer, -1)

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

    def close(self) -> None:
        """Gives everything back, at the end of the stream."""
        self.hold(0)
        self._usage.close(self._peer)
