"""All Kubernetes objects as they are now, and the tables that they make.

A collection is replaced by a list or changed by an event. The store works out which services that touches, assembles
only those, and publishes the table entries that really changed: a poll that finds nothing new publishes nothing.
It is not thread-safe: it belongs to the event loop.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import structlog

from xds_server.mesh import services
from xds_server.mesh.problems import Problem
from xds_server.model.service import ServiceName
from xds_server.model.tables import ENDPOINTS, SERVICES, Changes, Entry
from xds_server.objects import core, discovery, meta
from xds_server.objects.kinds import Collection

log = structlog.get_logger()

_LOGGED_PROBLEMS = 10
"""New problems of one service that one change may log, at most: a slice has up to 1000 endpoints."""


class Store:
    """Keeps objects by collection, and what was assembled of them by service.

    Args:
        collections: All of them have to be listed once before anything is published.
        publish: Takes the table entries that changed. The first call has all of them, and happens even if there are
            none.
    """

    def __init__(self, collections: Iterable[Collection], publish: Callable[[Changes], None]) -> None:
        self._unlisted = set(collections)
        self._publish = publish
        self._objects: dict[Collection, dict[meta.Key, meta.Object]] = {c: {} for c in self._unlisted}
        self._services: dict[ServiceName, core.Service] = {}
        self._slices: dict[ServiceName, dict[meta.Key, discovery.EndpointSlice]] = {}
        self._assembled: dict[ServiceName, services.Assembled] = {}
        self._touched: set[ServiceName] = set()
        self._published = False

    @property
    def problems(self) -> list[Problem]:
        """What can't be used at present, and why."""
        return [problem for assembled in self._assembled.values() for problem in assembled.problems]

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
                self._index(old[key], None)
            for key, item in new.items():
                before = old.get(key)
                if before != item:
                    self._index(before, item)
            self._unlisted.discard(collection)
        self._flush()

    def put(self, collection: Collection, item: meta.Object) -> None:
        """Applies one object that was added or modified."""
        key = meta.key(item)
        before = self._objects[collection].get(key)
        self._objects[collection][key] = item
        if before != item:
            self._index(before, item)
            self._flush()

    def remove(self, collection: Collection, key: meta.Key) -> None:
        """Applies the deletion of one object."""
        before = self._objects[collection].pop(key, None)
        if before is not None:
            self._index(before, None)
            self._flush()

    def _index(self, before: meta.Object | None, after: meta.Object | None) -> None:
        """Updates the indexes, and marks the services that the object belonged to or belongs to as touched."""
        if isinstance(before, core.Service):
            name = ServiceName(*meta.key(before))
            del self._services[name]
            self._touched.add(name)
        elif isinstance(before, discovery.EndpointSlice) and (owner := services.owner(before)):
            del self._slices[owner][meta.key(before)]
            if not self._slices[owner]:
                del self._slices[owner]
            self._touched.add(owner)
        if isinstance(after, core.Service):
            name = ServiceName(*meta.key(after))
            self._services[name] = after
            self._touched.add(name)
        elif isinstance(after, discovery.EndpointSlice) and (owner := services.owner(after)):
            self._slices.setdefault(owner, {})[meta.key(after)] = after
            self._touched.add(owner)

    def _flush(self) -> None:
        """Assembles the services that were touched, and publishes what changed once everything has been listed."""
        if self._unlisted:
            return
        changes: dict[Entry, Any] = {}
        for name in self._touched:
            before = self._assembled.get(name, services.NOTHING)
            after = self._assemble(name, before)
            if after == services.NOTHING:
                self._assembled.pop(name, None)
            else:
                self._assembled[name] = after
            if before.service != after.service:
                changes[Entry(SERVICES, name)] = after.service
            for port in before.endpoints.keys() | after.endpoints.keys():
                if before.endpoints.get(port) != after.endpoints.get(port):
                    changes[Entry(ENDPOINTS, port)] = after.endpoints.get(port)
        self._touched.clear()
        if changes or not self._published:
            self._published = True
            self._publish(changes)

    def _assemble(self, name: ServiceName, before: services.Assembled) -> services.Assembled:
        """The service as its objects make it now; as it was if that fails, so that it harms no other service."""
        source = self._services.get(name)
        if source is None:
            return services.NOTHING
        try:
            after = services.assemble(source, self._slices.get(name, {}).values())
        except Exception as error:
            log.exception("service can't be assembled; it stays as it was", service=str(name))
            reason = f"it can't be assembled and stays as it was: {error!r}"
            return before._replace(problems=(Problem("Service", name, reason),))
        known = set(before.problems)
        new = [problem for problem in after.problems if problem not in known]
        for problem in new[:_LOGGED_PROBLEMS]:
            log.warning(
                "object can't be used as it is",
                kind=problem.kind,
                object="/".join(problem.key),
                reason=problem.reason,
            )
        if len(new) > _LOGGED_PROBLEMS:
            log.warning(
                "more objects of the service can't be used as they are",
                service=str(name),
                more=len(new) - _LOGGED_PROBLEMS,
                hint="see /debug/services for all of them",
            )
        return after
