"""Services: the list, and one with its ports, endpoints, routes, policies and callers."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby, islice

from xds_server.admin.views import traffic
from xds_server.admin.views.listing import Page, page
from xds_server.admin.views.rates import by_port, total
from xds_server.admin.views.state import State
from xds_server.admin.views.traffic import ObjectRow
from xds_server.explain import words
from xds_server.lrs.loads import Edge, Rate
from xds_server.mesh.problems import Problem
from xds_server.model.service import Port, PortName, Service, ServiceName
from xds_server.model.tables import ENDPOINTS, POLICIES, SERVICES
from xds_server.model.traffic import Policy

MAX_ADDRESSES = 200
"""Of one zone on a page; more are only counted."""


@dataclass(frozen=True, slots=True)
class ServiceRow:
    """One Service in the list.

    Attributes:
        name: Of the Service.
        ports: Its ports.
        endpoints: Of the port that has most.
        rate: Of all ports.
    """

    name: ServiceName
    ports: tuple[Port, ...]
    endpoints: int
    rate: Rate


@dataclass(frozen=True, slots=True)
class ZoneRow:
    """The endpoints of one zone.

    Attributes:
        zone: Empty if they are in none.
        count: How many there are.
        addresses: Of the first ones.
    """

    zone: str
    count: int
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PortRow:
    """One port of a Service.

    Attributes:
        name: Canonical: the target without ``xds:///``.
        port: As the Service declares it.
        zones: Its endpoints.
        endpoints: How many there are.
        subscribers: How many clients have it.
        rate: Of requests to it.
        security: How connections to it are encrypted, and whom its servers let in; empty if nothing is said.
    """

    name: PortName
    port: Port
    zones: tuple[ZoneRow, ...]
    endpoints: int
    subscribers: int
    rate: Rate
    security: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ServiceDetails:
    """One Service.

    Attributes:
        name: Of the Service.
        ports: Its ports.
        objects: The routes and policies that are about it.
        problems: What can't be used of it.
        callers: Who calls it, the busiest first.
        rate: Of all ports.
    """

    name: ServiceName
    ports: tuple[PortRow, ...]
    objects: tuple[ObjectRow, ...]
    problems: tuple[Problem, ...]
    callers: tuple[tuple[Edge, Rate], ...]
    rate: Rate


def services(state: State, query: str, number: int) -> Page[ServiceRow]:
    """The list, by namespace and name. Only what is on the page is looked at closely."""
    found = page(sorted(state.tables[SERVICES]), str, query, number)
    ports = by_port(state.rates)
    rows = [_row(state, state.tables[SERVICES][name], ports) for name in found.items]
    return Page(rows, found.query, found.number, found.pages, found.found, found.total)


def _row(state: State, service: Service, rates: Mapping[PortName, Rate]) -> ServiceRow:
    endpoints = [len(state.tables[ENDPOINTS].get(port, ())) for port in service.port_names]
    rate = total(rates.get(port, Rate()) for port in service.port_names)
    return ServiceRow(service.name, service.ports, max(endpoints, default=0), rate)


def service(state: State, name: ServiceName) -> ServiceDetails | None:
    """One Service; None if it does not exist."""
    found = state.tables[SERVICES].get(name)
    if found is None:
        return None
    rates = by_port(state.rates)
    callers = [(edge, rate) for edge, rate in state.rates.items() if edge.service.service == name]
    return ServiceDetails(
        name,
        tuple(_port(state, *each, rates) for each in zip(found.port_names, found.ports, strict=True)),
        tuple(traffic.of_service(state, name)),
        tuple(problem for problem in state.problems if problem.key == tuple(name)),
        tuple(sorted(callers, key=lambda each: -each[1].requests)),
        total(rates.get(port, Rate()) for port in found.port_names),
    )


def _port(state: State, name: PortName, port: Port, rates: Mapping[PortName, Rate]) -> PortRow:
    endpoints = state.tables[ENDPOINTS].get(name, ())
    counts = Counter(endpoint.zone for endpoint in endpoints)
    zones = tuple(
        ZoneRow(
            zone,
            counts[zone],
            tuple(" + ".join(map(str, endpoint.addresses)) for endpoint in islice(found, MAX_ADDRESSES)),
        )
        for zone, found in groupby(endpoints, key=lambda endpoint: endpoint.zone)
    )
    rate = rates.get(name, Rate())
    security = words.of_security(state.tables[POLICIES].get(name) or Policy())
    return PortRow(name, port, zones, len(endpoints), state.subscribers(name), rate, tuple(security))
