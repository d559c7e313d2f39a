"""All Kubernetes objects as they are now, and the services that they make.

A collection is replaced by a list or changed by an event; the registry works out which services that touches,
assembles only those, and passes on those that really changed: a poll that finds nothing new changes nothing.
It must not know where the objects come from. It is not thread-safe: it belongs to the event loop.
"""

from collections.abc import Callable, Iterable, Mapping

import structlog

from xds_server import metrics
from xds_server.discovery import assembly, objects
from xds_server.model import Service, ServiceName

log = structlog.get_logger()

Changes = Mapping[ServiceName, Service | None]
"""Services that changed, and None for those that are gone."""

Collection = tuple[type[objects.Object], str]
"""What one list covers: a kind, in one namespace or (empty) in all."""


class Registry:
    """Keeps objects by collection, and services by name.

    Args:
        collections: All of what has to be listed before anything may be served.
        publish: Takes the services that changed; called first when all collections are there.
    """

    def __init__(self, collections: Iterable[Collection], publish: Callable[[Changes], None]) -> None:
        self._missing = set(collections)
        self._publish = publish
        self._objects: dict[Collection, dict[objects.Key, objects.Object]] = {c: {} for c in self._missing}
        self._services: dict[ServiceName, objects.Service] = {}
        self._slices: dict[ServiceName, dict[objects.Key, objects.EndpointSlice]] = {}
        self._assembled: dict[ServiceName, Service] = {}
        self._problems: dict[ServiceName, list[assembly.Problem]] = {}
        self._waiting: set[ServiceName] = set()
        self._published = False

    @property
    def synced(self) -> bool:
        """Whether every collection has been listed once."""
        return not self._missing

    @property
    def services(self) -> Mapping[ServiceName, Service]:
        """All services that clients can ask for."""
        return self._assembled

    @property
    def problems(self) -> list[assembly.Problem]:
        """What can't be used at present, and why."""
        return [problem for found in self._problems.values() for problem in found]

    def get(self, collection: Collection, key: objects.Key) -> objects.Object | None:
        """An object as it was last known."""
        return self._objects[collection].get(key)

    def replace(self, lists: Mapping[Collection, Iterable[objects.Object]]) -> None:
        """Takes complete lists, as one change: what is not in them is gone."""
        touched: set[ServiceName] = set()
        for collection, items in lists.items():
            old = self._objects[collection]
            new = {objects.key(item): item for item in items}
            self._objects[collection] = new
            for key in old.keys() - new.keys():
                touched |= self._exchange(old[key], None)
            for key, item in new.items():
                before = old.get(key)
                if before != item:
                    touched |= self._exchange(before, item)
            self._missing.discard(collection)
        self._settle(touched)

    def put(self, collection: Collection, item: objects.Object) -> None:
        """Takes an object that was added or modified."""
        key = objects.key(item)
        before = self._objects[collection].get(key)
        self._objects[collection][key] = item
        if before != item:
            self._settle(self._exchange(before, item))

    def remove(self, collection: Collection, key: objects.Key) -> None:
        """Takes the news that an object was deleted."""
        before = self._objects[collection].pop(key, None)
        if before is not None:
            self._settle(self._exchange(before, None))

    def _exchange(self, before: objects.Object | None, after: objects.Object | None) -> set[ServiceName]:
        """Keeps the indexes; returns the services that the object belonged to or belongs to."""
        touched = set()
        for item, present in ((before, False), (after, True)):
            match item:
                case objects.Service():
                    name = ServiceName(*objects.key(item))
                    if present:
                        self._services[name] = item
                    else:
                        self._services.pop(name, None)
                    touched.add(name)
                case objects.EndpointSlice():
                    owner = item.service_name
                    if owner is None:
                        continue
                    slices = self._slices.setdefault(owner, {})
                    if present:
                        slices[objects.key(item)] = item
                    else:
                        slices.pop(objects.key(item), None)
                    if not slices:
                        del self._slices[owner]
                    touched.add(owner)
        return touched

    def _settle(self, touched: set[ServiceName]) -> None:
        """Assembles the services touched, and publishes what changed once everything has been listed."""
        self._waiting |= touched
        if self._missing:
            return
        changes: dict[ServiceName, Service | None] = {}
        for name in self._waiting:
            before, after = self._assembled.get(name), self._assemble(name)
            if before == after:
                continue
            if after is None:
                del self._assembled[name]
            else:
                self._assembled[name] = after
            changes[name] = after
        self._waiting.clear()
        metrics.services.set(len(self._assembled))
        if changes or not self._published:
            self._published = True
            self._publish(changes)

    def _assemble(self, name: ServiceName) -> Service | None:
        source = self._services.get(name)
        service: Service | None = None
        problems: list[assembly.Problem] = []
        if source is not None:
            service, problems = assembly.assemble(source, self._slices.get(name, {}).values())
        known = self._problems.pop(name, [])
        for problem in problems:
            if problem not in known:
                where = "/".join(problem.key)
                log.warning(
                    "object can't be used as it is", kind=problem.kind, object=where, reason=problem.reason
                )
        if problems:
            self._problems[name] = problems
        return service
