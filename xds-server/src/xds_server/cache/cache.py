"""The resources that clients subscribe to, and their subscribers.

A resource is built when the first client subscribes to it, serialised once for all clients that get the same, and
dropped with its last subscriber: what nobody subscribes to costs nothing. While a resource is built, the table entries
and the fields of the client that it depends on are recorded. A change of the model rebuilds exactly the resources that
depend on it, and notifies the subscribers of those that really differ, whatever the size of the mesh.

This module must not know about streams, nor what resources are made of. Everything here happens under the cache's lock.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from xds_server import metrics
from xds_server.model.client import Client
from xds_server.model.service import Service
from xds_server.model.tables import ENDPOINTS, SERVICES, Changes, Entry, Table
from xds_server.resources.builders import Builder
from xds_server.resources.lookup import Lookup
from xds_server.resources.types import Key, Resource, ResourceType

log = structlog.get_logger()

Traits = tuple[str, ...]
"""Names of fields of a client, or their values."""


class Subscriber(Protocol):
    """Whoever is to be notified of changes of resources."""

    @property
    def client(self) -> Client:
        """The client that its resources are built for. Must not change while it subscribes to anything."""

    def changed(self, key: Key) -> None:
        """A resource is new, different or gone. Must not block."""

    def flush(self) -> None:
        """Called once after all `changed` calls of a publication. Must not block."""


@dataclass(slots=True)
class _Variant:
    """One resource, for all clients that agree in the traits that it depends on.

    Attributes:
        client: One of those clients.
        resource: None while it does not exist.
        subscribers: Each with the number of its subscriptions: by name, and by a wildcard.
    """

    client: Client
    resource: Resource | None
    subscribers: dict[Subscriber, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Subscribed:
    """A key that somebody subscribes to.

    Attributes:
        key: What clients subscribe to.
        build: Its builder; None if no resource can have the name.
        depends_on: The table entries that its variants depend on.
        traits: The fields of the client that its variants depend on; usually none.
        variants: One for each combination of values of those fields among the subscribers.
    """

    key: Key
    build: Builder | None
    depends_on: set[Entry] = field(default_factory=set)
    traits: Traits = ()
    variants: dict[Traits, _Variant] = field(default_factory=dict)


class Cache:
    """The latest value wins; there are no resources before the first publication.

    Args:
        builder: Returns the builder for a key; None if no resource can have its name.

    Attributes:
        lock: Must be held by whoever calls the cache or one of its subscribers; ``publish`` takes it itself.
        synced: Whether the whole model has been published once. Until then no client may be answered.
        problems: Resources that could not be built and keep their last good form, each with the reason.
    """

    def __init__(self, builder: Callable[[Key], Builder | None]) -> None:
        self.lock = threading.RLock()
        self.synced = False
        self.problems: dict[Key, str] = {}
        self._builder = builder
        self._tables: dict[Table[Any, Any], dict[Any, Any]] = {SERVICES: {}, ENDPOINTS: {}}
        self._subscribed: dict[Key, _Subscribed] = {}
        self._dependents: dict[Entry, dict[Key, None]] = {}
        self._wildcards: dict[ResourceType, dict[Subscriber, None]] = {kind: {} for kind in ResourceType}
        self._notified: dict[Subscriber, None] = {}

    @property
    def tables(self) -> Mapping[Table[Any, Any], Mapping[Any, Any]]:
        """The model as it is now."""
        return self._tables

    def publish(self, changes: Changes) -> None:
        """Applies changes of the model, rebuilds what depends on them, and notifies the subscribers concerned.

        The first call says that the whole model is known now.
        """
        began = time.perf_counter()
        with self.lock:
            before = {entry: self._apply(entry, value) for entry, value in changes.items()}
            for key in {key: None for entry in changes for key in self._dependents.get(entry, ())}:
                self._refresh(self._subscribed[key])
            for entry, service in before.items():
                if entry.table is SERVICES:
                    self._follow_wildcards(service, changes[entry])
            if not self.synced:
                self.synced = True
                for subscribers in self._wildcards.values():
                    self._notified.update(subscribers)
            notified, self._notified = self._notified, {}
            for subscriber in notified:
                subscriber.flush()
        metrics.publish_seconds.observe(time.perf_counter() - began)

    def get(self, key: Key, client: Client) -> Resource | None:
        """The resource as it is now for a client; None if it does not exist."""
        subscribed = self._subscribed.get(key)
        variant = subscribed and subscribed.variants.get(_values(client, subscribed.traits))
        if variant:
            return variant.resource
        build = self._builder(key)
        return build(Lookup(self._tables, client)) if build else None

    def canonical_names(self) -> Iterator[str]:
        """The names that a wildcard covers at present."""
        return (name for service in self._tables[SERVICES].values() for name in _names(service))

    def resources(self) -> Iterator[tuple[Key, Mapping[str, str], Resource | None, int]]:
        """Every subscribed resource: its key, the client's traits that it is for, itself, how many subscribe."""
        for subscribed in self._subscribed.values():
            for values, variant in subscribed.variants.items():
                traits = dict(zip(subscribed.traits, values, strict=True))
                yield subscribed.key, traits, variant.resource, len(variant.subscribers)

    def subscribe(self, subscriber: Subscriber, key: Key) -> None:
        """Notifies the subscriber of each change of one resource from now on."""
        subscribers = self._acquire(key, subscriber.client).subscribers
        subscribers[subscriber] = subscribers.get(subscriber, 0) + 1

    def unsubscribe(self, subscriber: Subscriber, key: Key) -> None:
        """Ends one subscription to a resource."""
        subscribed = self._subscribed[key]
        variant = subscribed.variants[_values(subscriber.client, subscribed.traits)]
        variant.subscribers[subscriber] -= 1
        if not variant.subscribers[subscriber]:
            del variant.subscribers[subscriber]
            self._release(subscribed)

    def subscribe_all(self, subscriber: Subscriber, kind: ResourceType) -> None:
        """Notifies the subscriber of each change of every canonical name of a type from now on."""
        self._wildcards[kind][subscriber] = None
        for name in self.canonical_names():
            self.subscribe(subscriber, Key(kind, name))

    def unsubscribe_all(self, subscriber: Subscriber, kind: ResourceType) -> None:
        """Ends such a subscription."""
        del self._wildcards[kind][subscriber]
        for name in self.canonical_names():
            self.unsubscribe(subscriber, Key(kind, name))

    def _apply(self, entry: Entry, value: Any) -> Any:
        """Stores the new value of a table entry; returns the old one."""
        table = self._tables[entry.table]
        before = table.pop(entry.key, None)
        if value is not None:
            table[entry.key] = value
        return before

    def _follow_wildcards(self, before: Service | None, after: Service | None) -> None:
        """Subscribes wildcard subscribers to canonical names that are new, and unsubscribes them from those gone."""
        if not any(self._wildcards.values()):
            return
        old, new = _names(before), _names(after)
        for kind, subscribers in self._wildcards.items():
            for subscriber in subscribers:
                for name in new - old:
                    self.subscribe(subscriber, Key(kind, name))
                    self._notify((subscriber,), Key(kind, name))
                for name in old - new:
                    self.unsubscribe(subscriber, Key(kind, name))

    def _notify(self, subscribers: Iterable[Subscriber], key: Key) -> None:
        for subscriber in subscribers:
            subscriber.changed(key)
        self._notified.update(dict.fromkeys(subscribers))

    def _acquire(self, key: Key, client: Client) -> _Variant:
        """The variant of a key for a client, built if nobody subscribes to it yet."""
        subscribed = self._subscribed.get(key)
        if subscribed is None:
            subscribed = self._subscribed[key] = _Subscribed(key, self._builder(key))
        variant = subscribed.variants.get(_values(client, subscribed.traits))
        if variant is None:
            variant = _Variant(client, None)
            lookup = self._build(subscribed, variant)
            self._depend(subscribed, subscribed.depends_on | lookup.entries)
            self._group(subscribed, _merged(subscribed.traits, lookup.traits))
            subscribed.variants[_values(client, subscribed.traits)] = variant
        return variant

    def _release(self, subscribed: _Subscribed) -> None:
        """Drops variants without subscribers, and the key with the last of them."""
        for values in [values for values, variant in subscribed.variants.items() if not variant.subscribers]:
            del subscribed.variants[values]
        if not subscribed.variants:
            self._depend(subscribed, set())
            self.problems.pop(subscribed.key, None)
            del self._subscribed[subscribed.key]

    def _refresh(self, subscribed: _Subscribed) -> None:
        """Builds every variant of a key again, and notifies the subscribers of those that differ."""
        regrouped = False
        while True:
            before = {values: variant.resource for values, variant in subscribed.variants.items()}
            lookups = [self._build(subscribed, variant) for variant in subscribed.variants.values()]
            traits = _merged((), *(lookup.traits for lookup in lookups))
            if traits == subscribed.traits:
                break
            self._group(subscribed, traits)
            regrouped = True
        self._depend(subscribed, set().union(*(lookup.entries for lookup in lookups)))
        for values, variant in subscribed.variants.items():
            # After regrouping all are notified: each subscriber compares the resource with what it has.
            if regrouped or variant.resource != before[values]:
                self._notify(variant.subscribers, subscribed.key)

    def _build(self, subscribed: _Subscribed, variant: _Variant) -> Lookup:
        """Builds a variant; returns what it depends on. A variant that can't be built keeps its last good form."""
        lookup = Lookup(self._tables, variant.client)
        if subscribed.build is None:
            return lookup
        key = subscribed.key
        try:
            variant.resource = subscribed.build(lookup)
        except Exception as error:
            lookup.traits.update(subscribed.traits)
            metrics.build_failures.labels(key.type.label).inc()
            log.exception("resource can't be built; it stays as it was", type=key.type.label, name=key.name)
            self.problems[key] = repr(error)
        else:
            self.problems.pop(key, None)
        return lookup

    def _depend(self, subscribed: _Subscribed, entries: set[Entry]) -> None:
        """Records the table entries that a key depends on now."""
        if entries == subscribed.depends_on:
            return
        for entry in entries - subscribed.depends_on:
            self._dependents.setdefault(entry, {})[subscribed.key] = None
        for entry in subscribed.depends_on - entries:
            dependents = self._dependents[entry]
            del dependents[subscribed.key]
            if not dependents:
                del self._dependents[entry]
        subscribed.depends_on = entries

    def _group(self, subscribed: _Subscribed, traits: Traits) -> None:
        """Groups the subscribers of a key by other traits of their clients."""
        if traits == subscribed.traits:
            return
        before, subscribed.traits, subscribed.variants = subscribed.variants, traits, {}
        for variant in before.values():
            for subscriber, count in variant.subscribers.items():
                group = subscribed.variants.setdefault(
                    _values(subscriber.client, traits), _Variant(subscriber.client, variant.resource)
                )
                group.subscribers[subscriber] = count


def _names(service: Service | None) -> frozenset[str]:
    """The canonical names of a service."""
    return frozenset(map(str, service.port_names)) if service else frozenset()


def _values(client: Client, traits: Traits) -> Traits:
    """The values of the given fields of a client."""
    return tuple(getattr(client, trait) for trait in traits) if traits else ()


def _merged(traits: Traits, *more: Iterable[str]) -> Traits:
    """The union, in a fixed order."""
    return tuple(sorted({*traits, *(trait for some in more for trait in some)}))
