"""The resources that clients subscribe to, and their subscribers.

A resource is built when the first client subscribes to it, serialised once for all clients that get the same, and
dropped with its last subscriber. While a resource is built, the table entries and the fields of the client that it
depends on are recorded. A change of the model rebuilds exactly the resources that depend on it, and notifies the
subscribers of those that really differ, whatever the size of the mesh.

This module must not know about streams, nor, wildcards aside, what resources are made of. Everything here happens under
the cache's lock.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from servicekit.log_limits import LogLimiter
from xds_server import metrics
from xds_server.model.client import Client
from xds_server.model.service import Service
from xds_server.model.tables import NODE_ZONES, SERVICES, TABLES, Changes, Entry, Table
from xds_server.resources.builders import Builder
from xds_server.resources.lookup import Lookup
from xds_server.resources.names import of_service
from xds_server.resources.types import Key, Resource, ResourceType

log = structlog.get_logger()

FAILURE_SECONDS = 60.0
"""How often the failed build of one resource is logged."""

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


@dataclass(slots=True, eq=False)
class _Variant:
    """One resource, for all clients that agree in the traits that it depends on.

    Attributes:
        client: One of those clients.
        resource: None while it does not exist.
        problem: Why the last build failed, or what else people should know; empty if it is nothing.
        entries: The table entries that it depends on.
        traits: The fields of the client that it depends on.
        subscribers: Each with the number of its subscriptions: by name, and by a wildcard. Empty once it is dropped.
    """

    client: Client
    resource: Resource | None = None
    problem: str = ""
    entries: set[Entry] = field(default_factory=set)
    traits: Traits = ()
    subscribers: dict[Subscriber, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Subscribed:
    """A key that somebody subscribes to.

    Attributes:
        key: What clients subscribe to.
        build: Its builder; None before the first build, and if no resource can have the name.
        traits: The fields of the client that any of its variants depends on; usually none.
        variants: One for each combination of values of those fields among the subscribers.
    """

    key: Key
    build: Builder | None = None
    traits: Traits = ()
    variants: dict[Traits, _Variant] = field(default_factory=dict)


class Cache:
    """The latest value wins; there are no resources before the first publication.

    Args:
        builder: Returns the builder for a key; None if no resource can have its name.

    Attributes:
        lock: Must be held by whoever calls the cache or one of its subscribers; ``publish`` takes it itself.
        synced: Whether the whole model has been published once. Until then no client may be answered.
    """

    def __init__(self, builder: Callable[[Key], Builder | None]) -> None:
        self.lock = threading.RLock()
        self.synced = False
        self._builder = builder
        self._tables: dict[Table[Any, Any], dict[Any, Any]] = {table: {} for table in TABLES}
        self._subscribed: dict[Key, _Subscribed] = {}
        self._dependents: dict[Entry, dict[_Variant, _Subscribed]] = {}
        self._wildcards: dict[ResourceType, dict[Subscriber, None]] = {kind: {} for kind in ResourceType}
        self._notified: dict[Subscriber, None] = {}
        self._failures = LogLimiter(burst=1, per_second=1 / FAILURE_SECONDS)
        self._remarks = LogLimiter(burst=1, per_second=1 / FAILURE_SECONDS)
        self._all_remarks = LogLimiter(burst=20, per_second=1)

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
            affected: dict[_Variant, _Subscribed] = {}
            for entry in changes:
                affected.update(self._dependents.get(entry, {}))
            regroup: dict[Key, _Subscribed] = {}
            for variant, subscribed in affected.items():
                if variant.subscribers and self._refresh(subscribed, variant):
                    regroup[subscribed.key] = subscribed
            for subscribed in regroup.values():
                self._group(subscribed)
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

    def locate(self, client: Client) -> Client:
        """The client, in the zone of its node if it does not say its zone itself."""
        zone = client.zone or self._tables[NODE_ZONES].get(client.node, "")
        return client if zone == client.zone else client._replace(zone=zone)

    def canonical_names(self) -> Iterator[str]:
        """The names that a wildcard covers at present."""
        return (name for service in self._tables[SERVICES].values() for name in of_service(service))

    def resources(self) -> Iterator[tuple[Key, Mapping[str, str], Resource | None, int]]:
        """Every subscribed resource: its key, the client's traits that it is for, itself, how many subscribe."""
        for subscribed in self._subscribed.values():
            for values, variant in subscribed.variants.items():
                traits = dict(zip(subscribed.traits, values, strict=True))
                yield subscribed.key, traits, variant.resource, len(variant.subscribers)

    def subscribers(self, key: Key) -> int:
        """How many subscribe to a resource."""
        subscribed = self._subscribed.get(key)
        return sum(len(variant.subscribers) for variant in subscribed.variants.values()) if subscribed else 0

    def problems(self) -> Iterator[tuple[Key, str]]:
        """Resources that could not be built and keep their last good form, or have another problem."""
        for subscribed in self._subscribed.values():
            for variant in subscribed.variants.values():
                if variant.problem:
                    yield subscribed.key, variant.problem

    def subscribe(self, subscriber: Subscriber, key: Key) -> None:
        """Notifies the subscriber of each change of one resource from now on."""
        subscribed = self._subscribed.get(key)
        if subscribed is None:
            subscribed = self._subscribed[key] = _Subscribed(key)
        values = _values(subscriber.client, subscribed.traits)
        variant = subscribed.variants.get(values)
        if variant is None:
            variant = subscribed.variants[values] = _Variant(subscriber.client)
            self._build(subscribed, variant)
        variant.subscribers[subscriber] = variant.subscribers.get(subscriber, 0) + 1
        if not set(variant.traits) <= set(subscribed.traits):
            self._group(subscribed)

    def unsubscribe(self, subscriber: Subscriber, key: Key) -> None:
        """Ends one subscription to a resource. What nobody subscribes to is dropped."""
        subscribed = self._subscribed[key]
        values = _values(subscriber.client, subscribed.traits)
        variant = subscribed.variants[values]
        variant.subscribers[subscriber] -= 1
        if variant.subscribers[subscriber]:
            return
        del variant.subscribers[subscriber]
        if not variant.subscribers:
            self._depend(subscribed, variant, set())
            del subscribed.variants[values]
        if not subscribed.variants:
            del self._subscribed[key]

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
        old, new = set(of_service(before)), set(of_service(after))
        for kind, subscribers in self._wildcards.items():
            for subscriber in subscribers:
                for name in new - old:
                    self.subscribe(subscriber, Key(kind, name))
                    self._notify(subscriber, Key(kind, name))
                for name in old - new:
                    self.unsubscribe(subscriber, Key(kind, name))

    def _notify(self, subscriber: Subscriber, key: Key) -> None:
        subscriber.changed(key)
        self._notified[subscriber] = None

    def _refresh(self, subscribed: _Subscribed, variant: _Variant) -> bool:
        """Builds a variant again, and notifies its subscribers if it differs; returns whether its traits do."""
        resource, traits = variant.resource, variant.traits
        self._build(subscribed, variant)
        if variant.resource != resource:
            for subscriber in variant.subscribers:
                self._notify(subscriber, subscribed.key)
        return variant.traits != traits

    def _build(self, subscribed: _Subscribed, variant: _Variant) -> None:
        """Builds a variant, and records what it depends on. If the build fails, its last good form stays."""
        lookup = Lookup(self._tables, variant.client)
        try:
            subscribed.build = subscribed.build or self._builder(subscribed.key)
            variant.resource = subscribed.build(lookup) if subscribed.build else None
            self._note(subscribed.key, variant, lookup.remark)
            variant.traits = tuple(sorted(lookup.traits))
        except Exception as error:  # noqa: BLE001 - whatever it is, it must harm no other resource
            variant.problem = repr(error)
            variant.traits = tuple(sorted({*lookup.traits, *variant.traits}))
            self._log_failure(subscribed.key, error)
        self._depend(subscribed, variant, lookup.entries)

    def _note(self, key: Key, variant: _Variant, remark: str) -> None:
        """Records what people should know about a resource that was built, and logs it once, not too often."""
        if (
            remark
            and remark != variant.problem
            and self._remarks.allow(f"{key.type.label} {key.name} {remark}") is not None
            # A client may make up names without end.
            and self._all_remarks.allow("") is not None
        ):
            log.warning(
                "resource has a problem",
                type=key.type.label,
                name=key.name,
                problem=remark,
            )
        variant.problem = remark

    def _log_failure(self, key: Key, error: Exception) -> None:
        """Counts a failed build, and logs it with its traceback, not too often."""
        metrics.build_failures.labels(key.type.label).inc()
        if self._failures.allow(f"{key.type.label} {key.name}") is not None:
            log.error(
                "resource can't be built; it stays as it was",
                type=key.type.label,
                name=key.name,
                exc_info=error,
            )

    def _depend(self, subscribed: _Subscribed, variant: _Variant, entries: set[Entry]) -> None:
        """Records the table entries that a variant depends on now."""
        if entries == variant.entries:
            return
        for entry in entries - variant.entries:
            self._dependents.setdefault(entry, {})[variant] = subscribed
        for entry in variant.entries - entries:
            dependents = self._dependents[entry]
            del dependents[variant]
            if not dependents:
                del self._dependents[entry]
        variant.entries = entries

    def _group(self, subscribed: _Subscribed) -> None:
        """Groups the subscribers of a key anew when the traits that its variants depend on have changed."""
        while (traits := _union(subscribed.variants.values())) != subscribed.traits:
            old, subscribed.variants, subscribed.traits = subscribed.variants, {}, traits
            for variant in old.values():
                self._depend(subscribed, variant, set())
                for subscriber, count in variant.subscribers.items():
                    group = subscribed.variants.setdefault(
                        _values(subscriber.client, traits), _Variant(subscriber.client, variant.resource)
                    )
                    group.subscribers[subscriber] = count
            for variant in subscribed.variants.values():
                self._build(subscribed, variant)
            for variant in old.values():
                for subscriber in variant.subscribers:
                    now = subscribed.variants[_values(subscriber.client, traits)].resource
                    if now != variant.resource:
                        self._notify(subscriber, subscribed.key)
                variant.subscribers.clear()


def _values(client: Client, traits: Traits) -> Traits:
    """The values of the given fields of a client."""
    return tuple(getattr(client, trait) for trait in traits) if traits else ()


def _union(variants: Iterable[_Variant]) -> Traits:
    """All traits that variants depend on, in a fixed order."""
    return tuple(sorted({trait for variant in variants for trait in variant.traits}))
