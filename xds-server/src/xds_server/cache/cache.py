"""The resources that somebody asks for, and who asks for them.

A resource is built when the first client subscribes to it, serialised once for all, and forgotten with its last
subscriber: what nobody asks for costs nothing. When services change, only the resources made of them are built
again, and only the subscribers of those that really differ are told, whatever the size of the mesh.
This module must not know about streams. What happens here happens under the cache's lock.
"""

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from xds_server import metrics
from xds_server.model import Port, Service, ServiceName
from xds_server.resources import cluster, endpoints, listener, names, route
from xds_server.resources.types import Resource, ResourceType

WILDCARD = "*"
"""Stands for every canonical name of a type; no resource has this name."""


class Key(NamedTuple):
    """What a client asks for.

    Attributes:
        type: The resource's type.
        name: The resource's name.
        namespace: The client's, where it makes a difference to what the name means, else empty: two clients that
            mean different services by one short name never share an entry.
    """

    type: ResourceType
    name: str
    namespace: str


def key_of(kind: ResourceType, name: str, client_namespace: str) -> Key:
    """The key under which a client in that namespace finds a name."""
    return Key(kind, name, names.scope(name, client_namespace) if kind is ResourceType.LISTENER else "")


class Subscriber(Protocol):
    """Whoever wants to hear about resources."""

    def changed(self, key: Key) -> None:
        """The resource is new, different or gone; for a wildcard also that everything is known now. Must not block."""

    def settled(self) -> None:
        """All that changed at once has been told."""


@dataclass(slots=True)
class _Entry:
    """A resource that somebody asks for: None while there is none of that name."""

    resource: Resource | None = None
    subscribers: dict[Subscriber, None] = field(default_factory=dict)


class Cache:
    """Latest value wins; nothing is there before the first publication.

    Args:
        cluster_domain: The suffix of full names of services, such as ``cluster.local``.

    Attributes:
        lock: To be held by whoever uses the cache or one of its subscribers; ``publish`` takes it itself.
        synced: Whether everything has been published once.
    """

    def __init__(self, cluster_domain: str) -> None:
        self.lock = threading.RLock()
        self.synced = False
        self._cluster_domain = cluster_domain
        self._services: dict[ServiceName, Service] = {}
        self._entries: dict[Key, _Entry] = {}
        self._keys: dict[ServiceName, dict[Key, None]] = {}
        self._wildcards: dict[ResourceType, dict[Subscriber, None]] = {kind: {} for kind in ResourceType}
        self._told: dict[Subscriber, None] = {}

    def publish(self, changes: Mapping[ServiceName, Service | None]) -> None:
        """Takes the services that changed (None: gone) and tells the subscribers concerned.

        The first call says that everything is known now.
        """
        began = time.perf_counter()
        with self.lock:
            first, self.synced = not self.synced, True
            for name, service in changes.items():
                self._exchange(name, service)
            if first:
                for kind, subscribers in self._wildcards.items():
                    self._tell(subscribers, Key(kind, WILDCARD, ""))
            told, self._told = self._told, {}
            for subscriber in told:
                subscriber.settled()
        metrics.publish_seconds.observe(time.perf_counter() - began)

    def get(self, key: Key) -> Resource | None:
        """The resource as it is now; None if there is none."""
        entry = self._entries.get(key)
        return entry.resource if entry else self._build(key)

    def canonical_names(self) -> Iterator[str]:
        """What a wildcard stands for at present."""
        return (name for service in self._services.values() for name in names.of_service(service))

    def resources(self) -> Mapping[Key, Resource | None]:
        """What is asked for at present, for people who look."""
        return {key: entry.resource for key, entry in self._entries.items()}

    def subscribe(self, subscriber: Subscriber, key: Key) -> None:
        """Tells the subscriber of each change of one resource from now on."""
        self._enter(key).subscribers[subscriber] = None

    def unsubscribe(self, subscriber: Subscriber, key: Key) -> None:
        """Ends that."""
        entry = self._entries.get(key)
        if entry is not None:
            entry.subscribers.pop(subscriber, None)
            self._leave(key, entry)

    def subscribe_all(self, subscriber: Subscriber, kind: ResourceType) -> None:
        """Tells the subscriber of each change of every canonical name of a type from now on."""
        self._wildcards[kind][subscriber] = None
        for name in self.canonical_names():
            self._enter(Key(kind, name, ""))

    def unsubscribe_all(self, subscriber: Subscriber, kind: ResourceType) -> None:
        """Ends that."""
        self._wildcards[kind].pop(subscriber, None)
        if not self._wildcards[kind]:
            for key, entry in [(k, e) for k, e in self._entries.items() if k.type is kind]:
                self._leave(key, entry)

    def _exchange(self, name: ServiceName, service: Service | None) -> None:
        """Keeps the service, and builds again what is made of it and asked for."""
        before = self._services.pop(name, None)
        if service is not None:
            self._services[name] = service
        for kind, subscribers in self._wildcards.items():
            if subscribers and service is not None:
                for canonical in names.of_service(service):
                    self._enter(Key(kind, canonical, ""), build=False)
        unchanged = _unchanged_types(before, service)
        for key in list(self._keys.get(name, ())):
            if key.type not in unchanged:
                self._refresh(key)

    def _refresh(self, key: Key) -> None:
        """Builds a resource again; tells whoever wants to know if it differs."""
        entry = self._entries[key]
        resource = self._build(key)
        if resource == entry.resource:
            return
        entry.resource = resource
        self._tell(entry.subscribers, key)
        if names.parse_canonical(key.name):
            self._tell(self._wildcards[key.type], key)
        if resource is None:
            self._leave(key, entry)

    def _tell(self, subscribers: Iterable[Subscriber], key: Key) -> None:
        for subscriber in subscribers:
            subscriber.changed(key)
        self._told.update(dict.fromkeys(subscribers))

    def _enter(self, key: Key, *, build: bool = True) -> _Entry:
        """The entry for a key, made if need be."""
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(self._build(key) if build else None)
            for name in self._made_of(key):
                self._keys.setdefault(name, {})[key] = None
        return entry

    def _leave(self, key: Key, entry: _Entry) -> None:
        """Forgets an entry that nobody asks for."""
        if entry.subscribers or (self._wildcards[key.type] and entry.resource is not None):
            return
        if self._entries.pop(key, None) is None:
            return
        for name in self._made_of(key):
            keys = self._keys[name]
            del keys[key]
            if not keys:
                del self._keys[name]

    def _made_of(self, key: Key) -> tuple[ServiceName, ...]:
        """The services that a resource of that name may be made of."""
        if key.type is ResourceType.LISTENER:
            spelling = self._parse(key)
            return spelling.services if spelling else ()
        parsed = names.parse_canonical(key.name)
        return (parsed[0],) if parsed else ()

    def _build(self, key: Key) -> Resource | None:
        """Makes the resource of a name, if there is something of that name."""
        if key.type is ResourceType.LISTENER:
            spelling = self._parse(key)
            target = names.resolve(spelling, self._services.get) if spelling else None
            return listener.build(key.name, target.canonical) if target else None
        port = self._port(key.name)
        if port is None:
            return None
        match key.type:
            case ResourceType.ROUTE:
                return route.build(key.name, key.name)
            case ResourceType.CLUSTER:
                return cluster.build(key.name)
            case _:
                return endpoints.build(key.name, port.endpoints)

    def _parse(self, key: Key) -> names.Spelling | None:
        return names.parse(key.name, client_namespace=key.namespace, cluster_domain=self._cluster_domain)

    def _port(self, canonical: str) -> Port | None:
        """The port that a canonical name stands for."""
        parsed = names.parse_canonical(canonical)
        service = self._services.get(parsed[0]) if parsed else None
        if service is None or parsed is None:
            return None
        return next((port for port in service.ports if str(port.number) == parsed[1]), None)


def _unchanged_types(before: Service | None, after: Service | None) -> frozenset[ResourceType]:
    """The types that can't differ: endpoints come and go far more often than ports, and matter to one type alone."""
    if before is None or after is None or _shape(before) != _shape(after):
        return frozenset()
    return frozenset(ResourceType) - {ResourceType.ENDPOINTS}


def _shape(service: Service) -> list[tuple[str, int, bool]]:
    return [(port.name, port.number, port.is_grpc) for port in service.ports]
