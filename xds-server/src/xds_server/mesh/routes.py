"""All GRPCRoutes as they are now, and the entries of ROUTES that they make. Pure.

A change of one route, or of a Service that it names, costs what that route costs, and what merging the routes of its
ports costs; routes elsewhere are not looked at. Not thread-safe, as the store that owns it.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import structlog

from xds_server.mesh import grpc_route
from xds_server.mesh.grpc_route import NOTHING, Attached, PolicyOf, Services
from xds_server.mesh.problems import Problem
from xds_server.mesh.statuses import Status
from xds_server.model.service import PortName, ServiceName
from xds_server.model.tables import ROUTES, Entry
from xds_server.model.traffic import Routes, Rule
from xds_server.objects.gateway import GRPCRoute
from xds_server.objects.kinds import GRPC_ROUTE
from xds_server.objects.meta import Key

log = structlog.get_logger()

Name = TypeVar("Name", ServiceName, PortName)


class RouteAssembler:
    """Keeps routes, what each of them makes, and what they make together.

    Args:
        services: The table SERVICES as it is now; the caller changes it, and tells of it by ``touch_service``.
        policy_of: Returns what the policies say about a route's rule.
    """

    def __init__(self, services: Services, policy_of: PolicyOf) -> None:
        self._services = services
        self._policy_of = policy_of
        self._objects: dict[Key, GRPCRoute] = {}
        self._attached: dict[Key, Attached] = {}
        self._by_service: dict[ServiceName, set[Key]] = {}
        self._by_port: dict[PortName, set[Key]] = {}
        self._entries: dict[PortName, Routes] = {}
        self._touched: set[Key] = set()
        self._restated: set[Key] = set()

    @property
    def objects(self) -> Mapping[Key, GRPCRoute]:
        """All routes as they were last put."""
        return self._objects

    def put(self, key: Key, route: GRPCRoute | None) -> None:
        """Applies a route that was added or modified, or (None) is gone."""
        before = self._objects.pop(key, None)
        if route is not None:
            self._objects[key] = route
        _reindex(
            self._by_service,
            key,
            grpc_route.references(key, before) if before else frozenset(),
            grpc_route.references(key, route) if route else frozenset(),
        )
        self._touched.add(key)

    def touch_service(self, name: ServiceName) -> None:
        """Marks the routes that name a Service, because it appeared, is gone or changed its ports."""
        self._touched |= self._by_service.get(name, set())

    def touch_route(self, key: Key) -> None:
        """Marks a route, because its policies changed."""
        if key in self._objects:
            self._touched.add(key)

    def flush(self) -> dict[Entry, Routes | None]:
        """Makes what was marked again. Returns the entries that really changed; None where one is gone."""
        ports: set[PortName] = set()
        for key in self._touched:
            before = self._attached.get(key, NOTHING)
            after = self._attach(key, before)
            if after == NOTHING:
                self._attached.pop(key, None)
            else:
                self._attached[key] = after
            _reindex(self._by_port, key, before.ports, after.ports)
            if _routing(before) != _routing(after):
                ports |= before.ports | after.ports
        self._restated |= self._touched
        self._touched.clear()
        changes: dict[Entry, Routes | None] = {}
        for port in ports:
            merged = self._merge(port)
            if merged != self._entries.get(port):
                changes[Entry(ROUTES, port)] = merged
                if merged is None:
                    del self._entries[port]
                else:
                    self._entries[port] = merged
        return changes

    def problems_of(self, key: Key) -> tuple[Problem, ...]:
        """What is not served of one route as it is written, and why, as of the last flush."""
        return self._attached.get(key, NOTHING).problems

    def problems(self) -> Iterator[Problem]:
        """What is not served as it is written, and why, as of the last flush."""
        for attached in self._attached.values():
            yield from attached.problems

    def status(self, key: Key) -> Status | None:
        """Our part of a route's status, as of the last flush; None if the route is gone."""
        return self._attached.get(key, NOTHING).status

    def take_restated(self) -> set[Key]:
        """Returns the routes that flushes made again since the last call; their statuses may differ."""
        restated, self._restated = self._restated, set()
        return restated

    def _attach(self, key: Key, before: Attached) -> Attached:
        """What a route makes now; as it was if that fails, so that it harms no other route."""
        route = self._objects.get(key)
        if route is None:
            return NOTHING
        try:
            return grpc_route.attach(key, route, self._services, self._policy_of)
        except Exception as error:
            log.exception("route can't be assembled; it stays as it was", route="/".join(key))
            reason = f"it can't be assembled and stays as it was: {error!r}"
            return before._replace(problems=(Problem(GRPC_ROUTE.name, key, reason),))

    def _merge(self, port: PortName) -> Routes | None:
        """The rules of all routes of a port; those of each consumer's namespace by themselves (GEP-1294)."""
        groups: dict[str, list[Key]] = {}
        for key in self._by_port.get(port, ()):
            groups.setdefault(key[0], []).append(key)
        if not groups:
            return None
        rules = {namespace: self._order(keys) for namespace, keys in groups.items()}
        return Routes(rules.pop(port.service.namespace, None), rules)

    def _order(self, keys: Iterable[Key]) -> tuple[Rule, ...]:
        """The rules of several routes, in the order in which they are tried.

        The more specific one first; of equals that of the older route, then that of the name that comes first, then
        the first in the spec (GRPCRouteRule.matches of the specification).
        """
        attached = ((self._attached[key], "/".join(key)) for key in keys)
        ranked = (
            (tuple(-count for count in specificity), route.created, name, index, rule)
            for route, name in attached
            for index, (specificity, rule) in enumerate(route.rules)
        )
        return tuple(rule for *_, rule in sorted(ranked, key=lambda item: item[:-1]))


def _routing(attached: Attached) -> tuple[object, ...]:
    """What decides where requests go."""
    return attached.created, attached.ports, attached.rules


def _reindex(index: dict[Name, set[Key]], key: Key, before: frozenset[Name], after: frozenset[Name]) -> None:
    """Moves a route in an index of routes by what they name."""
    for name in before - after:
        index[name].discard(key)
        if not index[name]:
            del index[name]
    for name in after - before:
        index.setdefault(name, set()).add(key)
