"""All Kubernetes objects as they are now, and the tables that they make.

A collection is replaced by a list or changed by an event. The store passes each object that differs to the assembler of
its kind, which works out what that touches and assembles only that. Then it publishes the table entries that really
changed: a poll that finds nothing new publishes nothing. It is not thread-safe: it belongs to the event loop.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from xds_server.mesh.nodes import NodeAssembler
from xds_server.mesh.policies import PolicyAssembler
from xds_server.mesh.problems import Owner, Problem, ProblemLog
from xds_server.mesh.routes import RouteAssembler
from xds_server.mesh.service_assembler import ServiceAssembler
from xds_server.mesh.statuses import Status
from xds_server.model.service import ServiceName
from xds_server.model.tables import ANY_NAMESPACE, READ, SECURED, SERVICES, Changes, Entry
from xds_server.model.traffic import CallPolicy
from xds_server.objects import core, discovery, meta
from xds_server.objects.gateway import GRPCRoute
from xds_server.objects.kinds import GRPC_BACKEND_POLICY, GRPC_ROUTE, SERVICE, Collection, Kind
from xds_server.objects.policy import GRPCBackendPolicy


class Reports(Protocol):
    """Whoever tells the user what becomes of objects."""

    def problem(self, owner: Owner, problem: Problem) -> None:
        """Something in an object can't be used; called once, when that is found."""

    def status(self, kind: Kind, key: meta.Key, item: meta.Tracked | None, status: Status | None) -> None:
        """An object or what its status has to say may have changed; None if the object is gone."""


class _Nobody:
    """Is told when nobody is interested."""

    def problem(self, owner: Owner, problem: Problem) -> None:
        """Does nothing."""

    def status(self, kind: Kind, key: meta.Key, item: meta.Tracked | None, status: Status | None) -> None:
        """Does nothing."""


class Store:
    """Keeps objects by collection, and the assemblers of the tables.

    Args:
        collections: All of them have to be listed once before anything is published.
        publish: Takes the table entries that changed. The first call has all of them, and happens even if there are
            none.
    """

    def __init__(self, collections: Iterable[Collection], publish: Callable[[Changes], None]) -> None:
        self._unlisted = set(collections)
        self._publish = publish
        self._reports: Reports = _Nobody()
        self._objects: dict[Collection, dict[meta.Key, meta.Object]] = {c: {} for c in self._unlisted}
        self._services = ServiceAssembler()
        self._nodes = NodeAssembler()
        self._routes = RouteAssembler(self._services.services, self._policy_of)
        self._policies: PolicyAssembler = PolicyAssembler(
            self._services.services, self._routes.objects, self._routes.idle
        )
        self._problem_log = ProblemLog()
        self._published = False
        self._read = {collection.namespace for collection in self._unlisted if collection.namespace}

    @property
    def problems(self) -> list[Problem]:
        """What can't be used at present, and why."""
        return [*self._services.problems(), *self._routes.problems(), *self._policies.problems()]

    @property
    def statuses(self) -> Iterable[tuple[Kind, meta.Key, Status]]:
        """What is to be said about each route and each policy."""
        for key in self._routes.objects:
            if status := self._routes.status(key):
                yield GRPC_ROUTE, key, status
        for key in self._policies.objects:
            if status := self._policies.status(key):
                yield GRPC_BACKEND_POLICY, key, status

    def report_to(self, reports: Reports) -> None:
        """Sets who is told of problems and statuses; nobody is before that."""
        self._reports = reports

    def find(self, kind: Kind, key: meta.Key) -> meta.Object | None:
        """An object of a kind, whichever collection it is in."""
        found = (items.get(key) for collection, items in self._objects.items() if collection.kind is kind)
        return next((item for item in found if item is not None), None)

    def concerning(self, kind: Kind, service: ServiceName) -> Iterator[meta.Key]:
        """Yields the routes or policies whose statuses are about a Service."""
        for found, (namespace, name), status in self.statuses:
            if found is kind and any(_is_about(entry.ref, namespace, service) for entry in status.entries):
                yield namespace, name

    def get(self, collection: Collection, key: meta.Key) -> meta.Object | None:
        """An object as it was last known."""
        return self._objects[collection].get(key)

    def replace(self, lists: Mapping[Collection, Iterable[meta.Object]]) -> None:
        """Applies complete lists as one change: objects that are not in them are gone."""
        for collection, items in lists.items():
            old = self._objects[collection]
            new = {meta.key(item): item for item in items}
            self._objects[collection] = new
            for key in old.keys() - new.keys():
                self._pass_on(key, old[key], None)
            for key, item in new.items():
                before = old.get(key)
                if before != item:
                    self._pass_on(key, before, item)
            self._unlisted.discard(collection)
        self._flush()

    def put(self, collection: Collection, item: meta.Object) -> None:
        """Applies one object that was added or modified."""
        key = meta.key(item)
        before = self._objects[collection].get(key)
        self._objects[collection][key] = item
        if before != item:
            self._pass_on(key, before, item)
            self._flush()

    def remove(self, collection: Collection, key: meta.Key) -> None:
        """Applies the deletion of one object."""
        before = self._objects[collection].pop(key, None)
        if before is not None:
            self._pass_on(key, before, None)
            self._flush()

    def _report_problems(self, owner: Owner, problems: Sequence[Problem]) -> None:
        for problem in self._problem_log.update(owner, problems):
            self._reports.problem(owner, problem)

    def _policy_of(self, route: meta.Key, rule: str) -> CallPolicy:
        """What policies say about a rule of a route. Called while routes are assembled, after the policies."""
        return self._policies.of_route(route, rule)

    def _pass_on(self, key: meta.Key, before: Any, after: Any) -> None:
        """Passes an object that was added, modified or removed to the assembler of its kind."""
        match after if after is not None else before:
            case core.Service():
                self._services.put_service(key, after)
            case discovery.EndpointSlice():
                self._services.put_slice(before, after)
            case core.Node():
                self._nodes.put(key[1], after)
            case GRPCRoute():
                self._routes.put(key, after)
            case GRPCBackendPolicy():
                self._policies.put(key, after)

    def _flush(self) -> None:
        """Assembles what was touched, and publishes what changed once everything has been listed."""
        if self._unlisted:
            return
        changes: dict[Entry, Any] = {**self._nodes.flush(), **self._services.flush()}
        for entry in changes:
            if entry.table is SERVICES:
                self._routes.touch_service(entry.key)
                self._policies.touch_service(entry.key)
        changes |= self._policies.flush()
        changes |= self._find_servers(changes)
        for key in self._policies.take_touched_routes():
            self._routes.touch_route(key)
        changes |= self._routes.flush()
        for key in self._routes.restated:
            self._policies.touch_route(key)
        self._policies.judge()
        if not self._published and self._read:
            changes |= {Entry(READ, namespace): True for namespace in (*self._read, ANY_NAMESPACE)}
        if changes or not self._published:
            self._published = True
            self._publish(changes)
        self._report()

    def _find_servers(self, changes: Changes) -> Changes:
        """The entries of SERVERS that change as namespaces get their first security policy, or lose their last."""
        if not any(entry.table is SECURED for entry in changes):
            return {}
        self._services.secure(self._policies.secured)
        return self._services.flush()

    def _report(self) -> None:
        """Reports what was assembled."""
        for name in self._services.take_restated():
            self._report_problems((SERVICE.name, *name), self._services.problems_of(name))
        for kind, assembler in ((GRPC_ROUTE, self._routes), (GRPC_BACKEND_POLICY, self._policies)):
            for key in assembler.take_restated():
                self._report_problems((kind.name, *key), assembler.problems_of(key))
                self._reports.status(kind, key, assembler.objects.get(key), assembler.status(key))


def _is_about(ref: Mapping[str, str | int], namespace: str, service: ServiceName) -> bool:
    """Whether a reference of an object in a namespace means a Service."""
    return (ref.get("kind", SERVICE.name), ref.get("namespace", namespace), ref.get("name")) == (
        SERVICE.name,
        service.namespace,
        service.name,
    )
