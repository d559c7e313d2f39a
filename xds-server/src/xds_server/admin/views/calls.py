"""Who calls whom, as a picture: callers at the left, services at the right, a curve for each pair.

The picture stays readable whatever the number of workloads: it has the busiest ones, and one row for all others.
"""

import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote, quote_plus

from xds_server.admin.views.rates import total
from xds_server.admin.views.state import State
from xds_server.lrs.loads import Rate
from xds_server.model.service import ServiceName
from xds_server.model.workload import Workload

MAX_ROWS = 20
"""Of callers and of services each; the others are one more row."""
ROW_HEIGHT = 30
WIDTH, LABEL_WIDTH = 960, 300
MIN_STROKE, MAX_STROKE = 1.5, 14.0
FAILING = 0.01
"""The share of failed requests from which a curve is drawn as failing."""

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Node:
    """A row of the picture.

    Attributes:
        name: In words.
        link: Where more about it is; empty if there is no such page.
        y: The middle of the row.
        rate: Of its requests.
    """

    name: str
    link: str
    y: float
    rate: Rate


@dataclass(frozen=True, slots=True)
class Curve:
    """The requests of a caller to a service.

    Attributes:
        path: In SVG.
        stroke: The width of the line.
        failing: Whether requests fail.
        title: In words.
    """

    path: str
    stroke: float
    failing: bool
    title: str


@dataclass(frozen=True, slots=True)
class Picture:
    """The picture, and the same as rows of a table.

    Attributes:
        width: In pixels.
        height: In pixels.
        left: Where curves begin.
        right: Where curves end.
        callers: At the left.
        services: At the right.
        curves: Between them, the busiest last, so that it is on top.
        rows: Caller, service and rate, the busiest first.
        rate: Of everything.
    """

    width: int
    height: int
    left: int
    right: int
    callers: tuple[Node, ...]
    services: tuple[Node, ...]
    curves: tuple[Curve, ...]
    rows: tuple[tuple[str, str, Rate], ...]
    rate: Rate


def calls(state: State, query: str = "") -> Picture:
    """The picture of all calls, or of those whose caller or service has every word of a query in its name."""
    words = query.lower().split()
    pairs: dict[tuple[Workload, ServiceName], Rate] = {}
    for edge, rate in state.rates.items():
        pair = edge.caller, edge.service.service
        text = f"{pair[0]} {pair[1]}".lower()
        if all(word in text for word in words):
            pairs[pair] = pairs.get(pair, Rate()) + rate
    return draw(pairs)


def draw(pairs: Mapping[tuple[Workload, ServiceName], Rate]) -> Picture:
    """Lays the picture out."""
    caller_of = _grouping((caller, rate) for (caller, _), rate in pairs.items())
    service_of = _grouping((service, rate) for (_, service), rate in pairs.items())
    grouped: dict[tuple[Workload | None, ServiceName | None], Rate] = {}
    for (caller, service), rate in pairs.items():
        pair = caller_of(caller), service_of(service)
        grouped[pair] = grouped.get(pair, Rate()) + rate
    callers = _column(_sums(grouped, 0), "callers", _caller_link)
    services = _column(_sums(grouped, 1), "services", _service_link)
    rows = max(len(callers), len(services))
    left, right = LABEL_WIDTH, WIDTH - LABEL_WIDTH
    busiest = max((rate.requests + rate.dropped for rate in grouped.values()), default=0.0)
    curves = [
        _curve(callers[caller], services[service], rate, busiest, left, right)
        for (caller, service), rate in sorted(grouped.items(), key=lambda each: each[1].requests)
    ]
    table = sorted(pairs.items(), key=lambda each: -(each[1].requests + each[1].dropped))
    return Picture(
        WIDTH,
        rows * ROW_HEIGHT,
        left,
        right,
        tuple(callers.values()),
        tuple(services.values()),
        tuple(curves),
        tuple((str(caller), str(service), rate) for (caller, service), rate in table[: MAX_ROWS * 5]),
        total(pairs.values()),
    )


def _sums(pairs: Mapping[tuple[T | None, T | None], Rate], side: int) -> dict[T | None, Rate]:
    """The sums of one side of pairs."""
    found: dict[T | None, Rate] = {}
    for pair, rate in pairs.items():
        found[pair[side]] = found.get(pair[side], Rate()) + rate
    return found


def _grouping(rates: Iterable[tuple[T, Rate]]) -> Callable[[T], T | None]:
    """Returns what finds the row of each: its own for the busiest, and None for all others."""
    sums: dict[T, Rate] = {}
    for each, rate in rates:
        sums[each] = sums.get(each, Rate()) + rate
    busiest = sorted(sums, key=lambda each: -(sums[each].requests + sums[each].dropped))[:MAX_ROWS]
    kept = set(busiest)
    return lambda each: each if each in kept else None


def _column(sums: Mapping[T | None, Rate], noun: str, link: Callable[[T], str]) -> dict[T | None, Node]:
    """The rows of one side: the busiest first, the row of all others last."""
    ordered = sorted(
        sums, key=lambda each: (each is None, -(sums[each].requests + sums[each].dropped), str(each))
    )
    return {
        each: Node(
            f"all other {noun}" if each is None else str(each),
            "" if each is None else link(each),
            (row + 0.5) * ROW_HEIGHT,
            sums[each],
        )
        for row, each in enumerate(ordered)
    }


def _caller_link(caller: Workload) -> str:
    return f"/clients?q={quote_plus(f'{caller.name} {caller.namespace}')}"


def _service_link(service: ServiceName) -> str:
    return f"/services/{quote(service.namespace)}/{quote(service.name)}"


def _curve(caller: Node, service: Node, rate: Rate, busiest: float, left: int, right: int) -> Curve:  # noqa: PLR0913, PLR0917 - each is one thing
    middle = (left + right) / 2
    # The width grows with the root: a tenth of the requests is still visible.
    share = math.sqrt((rate.requests + rate.dropped) / busiest) if busiest else 0.0
    failed = rate.failed + rate.dropped
    title = f"{caller.name} to {service.name}: {rate.requests:.1f} requests/s, {failed:.1f} failed/s"
    return Curve(
        f"M{left} {caller.y:g}C{middle:g} {caller.y:g} {middle:g} {service.y:g} {right} {service.y:g}",
        round(MIN_STROKE + share * (MAX_STROKE - MIN_STROKE), 1),
        failed > FAILING * (rate.requests + rate.dropped),
        title,
    )
