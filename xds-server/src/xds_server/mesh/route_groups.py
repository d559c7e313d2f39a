"""The routes that share one scope: which of them fit its budget, and the order in which their rules are tried. Pure."""

import bisect
from collections.abc import Mapping
from typing import NamedTuple

from xds_server.mesh import budget
from xds_server.mesh.grpc_route import RouteReading
from xds_server.model.traffic import Rule
from xds_server.objects.meta import Key


class _Rank(NamedTuple):
    """Which of two routes takes precedence: the older one, then the one whose name comes first.

    https://gateway-api.sigs.k8s.io/reference/spec/#grpcrouterule
    """

    created: str
    name: str
    key: Key


class _PlacedRule(NamedTuple):
    """A rule, and what decides when it is tried.

    The more specific one first; of equals that of the route that takes precedence, then the first in the spec
    (GRPCRouteRule.matches of the specification). No two have an equal route and place, so rules are never compared.
    """

    unspecificity: tuple[int, ...]
    rank: _Rank
    place: int
    rule: Rule


class RouteGroup:
    """Keeps the routes of one scope, sorted."""

    def __init__(self) -> None:
        self._readings: dict[Key, RouteReading] = {}
        self._ranks: list[_Rank] = []
        self._served: set[Key] = set()
        self._changed: set[Key] = set()
        self._placed: list[_PlacedRule] = []
        self._excesses: dict[Key, str] = {}

    @property
    def excesses(self) -> Mapping[Key, str]:
        """The routes that do not fit, each with the reason, as of the last ``settle``."""
        return self._excesses

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules in the order in which they are tried, as of the last ``settle``."""
        return tuple(placed.rule for placed in self._placed)

    def __bool__(self) -> bool:
        """Whether there are any routes."""
        return bool(self._readings)

    def put(self, key: Key, reading: RouteReading | None) -> None:
        """Adds, replaces or (None) removes a route."""
        before = self._readings.pop(key, None)
        if before is not None:
            del self._ranks[bisect.bisect_left(self._ranks, _rank(key, before))]
        if reading is not None:
            self._readings[key] = reading
            bisect.insort(self._ranks, _rank(key, reading))
        self._changed.add(key)

    def settle(self) -> set[Key]:
        """Finds out which routes fit. Returns those for which the answer, or its reason, has changed."""
        excesses: dict[Key, str] = {}
        used = budget.Cost()
        for rank in self._ranks:
            more = self._readings[rank.key].cost
            if excess := budget.excess(used, more):
                excesses[rank.key] = excess
            else:
                used = used.plus(more)
        before, self._excesses = self._excesses, excesses
        served = self._readings.keys() - excesses.keys()
        moved = (served ^ self._served) | self._changed
        if moved:
            self._placed = [placed for placed in self._placed if placed.rank.key not in moved]
            for key in served & moved:
                self._placed += _placed(key, self._readings[key])
            # Most of it is sorted already, which costs one comparison a rule.
            self._placed.sort()
        self._served = served
        self._changed.clear()
        return {key for key in before.keys() | excesses.keys() if before.get(key) != excesses.get(key)}


def _rank(key: Key, reading: RouteReading) -> _Rank:
    return _Rank(reading.created, "/".join(key), key)


def _placed(key: Key, reading: RouteReading) -> list[_PlacedRule]:
    rank = _rank(key, reading)
    return [
        _PlacedRule(tuple(-count for count in specificity), rank, place, rule)
        for place, (specificity, rule) in enumerate(reading.rules)
    ]
