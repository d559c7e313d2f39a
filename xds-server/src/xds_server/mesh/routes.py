"""All GRPCRoutes as they are now, and the entries of ROUTES and CONSUMED that they make. Pure.

A change of one route, or of a Service that it names, costs what that route costs, and what merging the routes of its
scopes costs: for a consumer's route those of its own namespace. Routes elsewhere are not looked at. Not thread-safe, as
the store that owns it.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import structlog

from xds_server.mesh import grpc_route, route_status
from xds_server.mesh.grpc_route import NOTHING, PolicyOf, RouteReading, Services
from xds_server.mesh.problems import Problem
from xds_server.mesh.route_groups import RouteGroup
from xds_server.mesh.route_status import UNKNOWN, RouteState
from xds_server.mesh.statuses import Status
from xds_server.model.service import PortName, ServiceName
from xds_server.model.tables import CONSUMED, ROUTES, Entry
from xds_server.model.traffic import RouteScope, Rule
from xds_server.objects.gateway import GRPCRoute
from xds_server.objects.kinds import GRPC_ROUTE
from xds_server.objects.meta import Key

log = structlog.get_logger()


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
        self._readings: dict[Key, RouteReading] = {}
        self._failures: dict[Key, Problem] = {}
        self._states: dict[Key, RouteState] = {}
        self._by_service: dict[ServiceName, set[Key]] = {}
        self._groups: dict[RouteScope, RouteGroup] = {}
        self._entries: dict[RouteScope, tuple[Rule, ...]] = {}
        self._consumers: Counter[PortName] = Counter()
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

    def flush(self) -> dict[Entry, Any]:
        """Makes what was marked again. Returns the entries that really changed; None where one is gone."""
        scopes: set[RouteScope] = set()
        for key in self._touched:
            before = self._readings.pop(key, None)
            after = self._read(key, before)
            if after is not None:
                self._readings[key] = after
            if _routing(before or NOTHING) != _routing(after or NOTHING):
                scopes |= self._move(key, before or NOTHING, after or NOTHING)
        self._restated |= self._touched
        self._touched.clear()
        changes: dict[Entry, Any] = {}
        for scope in scopes:
            changes |= self._settle(scope)
        for key in self._restated:
            self._state(key)
        return changes

    def problems_of(self, key: Key) -> tuple[Problem, ...]:
        """What is not served of one route as it is written, and why, as of the last flush."""
        return self._states.get(key, UNKNOWN).problems

    def problems(self) -> Iterator[Problem]:
        """What is not served as it is written, and why, as of the last flush."""
        for state in self._states.values():
            yield from state.problems

    def status(self, key: Key) -> Status | None:
        """Our part of a route's status, as of the last flush; None if the route is gone."""
        return self._states.get(key, UNKNOWN).status

    def idle(self, key: Key, rule: str) -> str:
        """Why a policy for a route, or for its rule of that name (empty: all rules), has no effect; empty if it has."""
        return route_status.idle(key, self._readings.get(key), self.status(key), rule)

    @property
    def restated(self) -> Collection[Key]:
        """What ``take_restated`` will return."""
        return self._restated

    def take_restated(self) -> set[Key]:
        """Returns the routes that flushes made again since the last call; their statuses may differ."""
        restated, self._restated = self._restated, set()
        return restated

    def _read(self, key: Key, before: RouteReading | None) -> RouteReading | None:
        """What a route asks for now; as it was if that fails, so that it harms no other route. None if it is gone."""
        route = self._objects.get(key)
        self._failures.pop(key, None)
        if route is None:
            return None
        try:
            return grpc_route.read_route(key, route, self._services, self._policy_of)
        except Exception as error:
            log.exception("route can't be assembled; it stays as it was", route="/".join(key))
            reason = f"it can't be assembled and stays as it was: {error!r}"
            self._failures[key] = Problem(GRPC_ROUTE.name, key, reason)
            return before

    def _move(self, key: Key, before: RouteReading, after: RouteReading) -> set[RouteScope]:
        """Moves a route from the groups that it was in to those that it is in now; returns the scopes of all."""
        old = {_scope(key, port) for port in before.ports}
        new = {_scope(key, port) for port in after.ports}
        for scope in old - new:
            self._groups[scope].put(key, None)
        for scope in new:
            self._groups.setdefault(scope, RouteGroup()).put(key, after)
        return old | new

    def _settle(self, scope: RouteScope) -> dict[Entry, Any]:
        """Makes the rules of a scope again; returns the entries that changed."""
        group = self._groups[scope]
        self._restated |= group.settle()
        if not group:
            del self._groups[scope]
        rules = group.rules
        before = self._entries.get(scope, ())
        if rules == before:
            return {}
        changes: dict[Entry, Any] = {Entry(ROUTES, scope): rules or None}
        if rules:
            self._entries[scope] = rules
        else:
            del self._entries[scope]
        if scope.namespace and bool(rules) != bool(before):
            changes |= self._consume(scope.port, 1 if rules else -1)
        return changes

    def _consume(self, port: PortName, more: int) -> dict[Entry, Any]:
        """Counts the namespaces that have rules of their own for a port; returns the entry if it changed."""
        before = self._consumers[port]
        self._consumers[port] += more
        if not self._consumers[port]:
            del self._consumers[port]
        if before and self._consumers[port]:
            return {}
        return {Entry(CONSUMED, port): True if more > 0 else None}

    def _state(self, key: Key) -> None:
        """Finds out what is to be said about a route."""
        reading = self._readings.get(key)
        failure = self._failures.get(key)
        if failure is not None:
            self._states[key] = self._states.get(key, UNKNOWN)._replace(problems=(failure,))
        elif reading is None:
            self._states.pop(key, None)
        else:
            excesses = {
                port: excess
                for port in reading.ports
                if (excess := self._groups[_scope(key, port)].excesses.get(key))
            }
            self._states[key] = route_status.state(key, reading, excesses)


def _scope(key: Key, port: PortName) -> RouteScope:
    """The clients that a route is for: those of its namespace, or all if that is the Service's (GEP-1294)."""
    return RouteScope(port, "" if key[0] == port.service.namespace else key[0])


def _routing(reading: RouteReading) -> tuple[object, ...]:
    """What decides where requests go."""
    return reading.created, reading.ports, reading.rules


def _reindex(
    index: dict[ServiceName, set[Key]],
    key: Key,
    before: frozenset[ServiceName],
    after: frozenset[ServiceName],
) -> None:
    """Moves a route in the index of routes by the Services that they name."""
    for name in before - after:
        index[name].discard(key)
        if not index[name]:
            del index[name]
    for name in after - before:
        index.setdefault(name, set()).add(key)
