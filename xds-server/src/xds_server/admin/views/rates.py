"""Sums of load reports by service."""

from collections.abc import Iterable, Mapping

from xds_server.lrs.loads import Edge, Rate
from xds_server.model.service import PortName


def by_port(rates: Mapping[Edge, Rate]) -> Mapping[PortName, Rate]:
    """The requests to each port."""
    found: dict[PortName, Rate] = {}
    for edge, rate in rates.items():
        found[edge.service] = found.get(edge.service, Rate()) + rate
    return found


def total(rates: Iterable[Rate]) -> Rate:
    """The sum."""
    found = Rate()
    for rate in rates:
        found += rate
    return found
