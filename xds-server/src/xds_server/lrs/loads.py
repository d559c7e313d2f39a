"""The sums of load reports: by service for ever, and by caller as they are now. Pure: the time is an argument.

Nothing here is locked: whoever calls it holds a lock.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import NamedTuple

from xds_server.model.service import PortName
from xds_server.model.workload import Workload

MAX_EDGES = 100_000
"""Of all streams together: some 50 MiB. Beyond that, only the first few of a report are kept as rates."""
FEW_EDGES = 10
FRESH_INTERVALS = 3
"""A client that has reported nothing for so many intervals sends no requests."""


class Edge(NamedTuple):
    """Who calls whom.

    Attributes:
        caller: The workload of the client.
        service: The port that was called.
        zone: Of the endpoints that answered; empty if they are in none.
    """

    caller: Workload
    service: PortName
    zone: str


class Rate(NamedTuple):
    """Requests a second, of the reports that came last.

    Attributes:
        requests: Requests that ended.
        failed: Those of them that failed.
        dropped: Requests that the client failed itself: by a circuit breaker, or because no endpoint exists.
        in_progress: Requests that had not ended; a number, not a rate.
    """

    requests: float = 0.0
    failed: float = 0.0
    dropped: float = 0.0
    in_progress: int = 0

    def __add__(self, other: object) -> "Rate":
        if not isinstance(other, Rate):
            return NotImplemented
        return Rate(
            self.requests + other.requests,
            self.failed + other.failed,
            self.dropped + other.dropped,
            self.in_progress + other.in_progress,
        )


class Counts(NamedTuple):
    """What one report says about one service and zone.

    Attributes:
        service: The port that was called.
        zone: Of the endpoints; empty for requests that were dropped.
        succeeded: Requests that ended well.
        failed: Requests that failed.
        dropped: Requests that the client failed itself.
        in_progress: Requests that had not ended.
        seconds: How long it was counted.
    """

    service: PortName
    zone: str
    succeeded: int
    failed: int
    dropped: int
    in_progress: int
    seconds: float


class Totals(NamedTuple):
    """Requests to one service since the server started."""

    succeeded: int = 0
    failed: int = 0
    dropped: int = 0


class Loads:
    """What all clients report.

    Args:
        interval: How often clients report, in seconds.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._totals: dict[PortName, Totals] = {}
        self._last: dict[int, tuple[float, Mapping[Edge, Rate]]] = {}
        self._edges = 0

    def report(self, stream: int, caller: Workload, counts: Iterable[Counts], now: float) -> None:
        """Adds one report. The one before of the same stream no longer counts as its rate.

        Args:
            stream: Identifies the stream on which it came.
            caller: Of the client.
            counts: What it says.
            now: In seconds.
        """
        rates: dict[Edge, Rate] = {}
        for each in counts:
            before = self._totals.get(each.service, Totals())
            self._totals[each.service] = Totals(
                before.succeeded + each.succeeded, before.failed + each.failed, before.dropped + each.dropped
            )
            edge = Edge(caller, each.service, each.zone)
            rate = Rate(
                (each.succeeded + each.failed) / each.seconds,
                each.failed / each.seconds,
                each.dropped / each.seconds,
                each.in_progress,
            )
            rates[edge] = rates.get(edge, Rate()) + rate
        self.forget(stream)
        if self._edges + len(rates) > MAX_EDGES:
            rates = dict(islice(rates.items(), FEW_EDGES))
        self._edges += len(rates)
        self._last[stream] = (now, rates)

    def forget(self, stream: int) -> None:
        """A stream has ended: it has no rate any more."""
        _, rates = self._last.pop(stream, (0.0, {}))
        self._edges -= len(rates)

    def rates(self, now: float) -> Mapping[Edge, Rate]:
        """Who calls whom at present, without what is quiet."""
        oldest = now - FRESH_INTERVALS * self._interval
        found: dict[Edge, Rate] = {}
        for at, rates in self._last.values():
            if at >= oldest:
                for edge, rate in rates.items():
                    found[edge] = found.get(edge, Rate()) + rate
        return {edge: rate for edge, rate in found.items() if any(rate)}

    def totals(self, exists: Callable[[PortName], bool]) -> Mapping[PortName, Totals]:
        """The sums of all services that exist. What does not exist any more is forgotten."""
        self._totals = {service: sums for service, sums in self._totals.items() if exists(service)}
        return dict(self._totals)
