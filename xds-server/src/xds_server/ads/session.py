"""One stream's side of the xDS protocol, without I/O: requests and changes in, responses out.

Keeps, for each type, what the client subscribes to, what it was sent, and what it is owed. Responses are made only
when one is asked for, from what is true at that moment: a slow stream has one pending set, never a queue, and the
newest content wins. https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol
"""

import enum
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from envoy.config.core.v3 import base_pb2

from xds_server.ads import wire
from xds_server.cache import WILDCARD, Cache, Key, key_of
from xds_server.resources.types import Resource, ResourceType

MAX_NAMES = 20_000
"""Subscriptions of one type on one stream."""
MAX_NAME_LENGTH = 2_048
MAX_NODE_BYTES = 65_536
"""Of a client's description of itself, which is kept as long as its stream."""
DEFAULT_NAMESPACE = "default"

_TYPES = {kind.value: kind for kind in ResourceType}
_ORDER = tuple(ResourceType)
_FULL_STATE = (ResourceType.LISTENER, ResourceType.CLUSTER)


class Kind(enum.Enum):
    """What a request meant; the value is a label for metrics."""

    SUBSCRIBE = "subscribe"
    ACK = "ack"
    NACK = "nack"
    STALE = "stale"
    UNKNOWN_TYPE = "unknown_type"


class InvalidRequestError(Exception):
    """The client broke the protocol or a limit; the stream ends with this text."""


class Status(enum.Enum):
    """What has become of a name that a client subscribes to."""

    MISSING = "missing"
    """There is nothing of that name, so nothing was sent."""
    SENT = "sent"
    """It was sent and the client has not answered yet."""
    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Rejection:
    """A response that the client refused, in its own words.

    Attributes:
        version: Of the response.
        names: Of the resources in it; which of them is meant only the message can tell.
        message: Of the client.
    """

    version: str
    names: Sequence[str]
    message: str


class Held(NamedTuple):
    """What the server knows of one name on one stream.

    Attributes:
        type: Of the resource.
        name: As the client asks for it.
        status: What has become of it.
        resource: What was sent last; None if nothing was.
        rejection: With a refusal, the client's own words.
    """

    type: ResourceType
    name: str
    status: Status
    resource: Resource | None
    rejection: Rejection | None


class Outcome(NamedTuple):
    """What a request led to.

    Attributes:
        kind: What it meant.
        type: What it was about; None if the type is not served.
        missing: Names that it asks for and that do not exist (yet).
        rejection: With a NACK, what was refused.
    """

    kind: Kind
    type: ResourceType | None
    missing: tuple[str, ...] = ()
    rejection: Rejection | None = None


class Response(NamedTuple):
    """A response to write.

    Attributes:
        type: What it is about.
        version: Of its content.
        nonce: By which the client will refer to it.
        names: Of its resources.
        body: Its serialised form.
    """

    type: ResourceType
    version: str
    nonce: str
    names: Sequence[str]
    body: bytes


@dataclass(slots=True)
class _Subscription:
    """One type's state.

    Attributes:
        names: What the client named.
        wildcard: Whether it wants every canonical name.
        was_named: Whether it ever named something: from then on an empty list means nothing, not everything.
        nonce: Of the last response; empty before the first.
        version: Of the last response.
        latest: Names of the resources in the last response.
        acknowledged: The last version that it accepted.
        sent: What it was sent of what it subscribes to.
        pending: Names that may have to be sent, or to be told gone.
        owed: Those that have to be sent although the client may have them.
        owes_all: Whether the client is still to be told what a wildcard stands for, even if that is nothing.
        rejection: The last response that it refused, until it accepts one.
    """

    type: ResourceType
    names: set[str] = field(default_factory=set)
    wildcard: bool = False
    was_named: bool = False
    nonce: str = ""
    version: str = ""
    latest: Sequence[str] = ()
    acknowledged: str = ""
    sent: dict[str, Resource] = field(default_factory=dict)
    pending: set[str] = field(default_factory=set)
    owed: set[str] = field(default_factory=set)
    owes_all: bool = False
    rejection: Rejection | None = None


class Session:
    """The state of one stream. Streams of one client are independent: nothing here is keyed by node id.

    Args:
        cache: Where resources come from.
        asked: Called when ``next`` may have something because the client asked; must not block.
        changed: The same because something changed, which may wait a little while more changes gather.
    """

    def __init__(self, cache: Cache, *, asked: Callable[[], None], changed: Callable[[], None]) -> None:
        self.node = base_pb2.Node()
        self.namespace = DEFAULT_NAMESPACE
        self._cache = cache
        self._asked = asked
        self._changed = changed
        self._identified = False
        self._responses = 0
        self._subscriptions: dict[ResourceType, _Subscription] = {}

    def request(self, request: Any) -> Outcome:
        """Takes a DiscoveryRequest.

        Raises:
            InvalidRequestError: It has no type, or it goes over a limit.
        """
        if not self._identified:
            self._identify(request.node)
        if not request.type_url:
            raise InvalidRequestError("a DiscoveryRequest on an aggregated stream must have a type_url")
        kind = _TYPES.get(request.type_url)
        if kind is None:
            return Outcome(Kind.UNKNOWN_TYPE, None)
        subscription = self._subscriptions.get(kind)
        if subscription is None:
            subscription = self._subscriptions[kind] = _Subscription(kind)
        nonce = request.response_nonce
        if nonce and subscription.nonce and nonce != subscription.nonce:
            # It crossed a newer response; the client's answer to that one has all its names again.
            return Outcome(Kind.STALE, kind)
        meant = Kind.ACK if nonce and nonce == subscription.nonce else Kind.SUBSCRIBE
        if meant is Kind.ACK and request.HasField("error_detail"):
            meant = Kind.NACK
            words = request.error_detail.message
            subscription.rejection = Rejection(subscription.version, subscription.latest, words)
        elif meant is Kind.ACK:
            subscription.rejection = None
            subscription.acknowledged = request.version_info
        missing = self._subscribe(subscription, request.resource_names)
        return Outcome(meant, kind, missing, subscription.rejection if meant is Kind.NACK else None)

    def changed(self, key: Key) -> None:
        """Takes the news that a resource may differ from what the client has."""
        self._subscriptions[key.type].pending.add(key.name)

    def settled(self) -> None:
        """Takes the news that this was all that changed at once."""
        self._changed()

    def next(self) -> Response | None:
        """The next response to write, of what is true now; None if the client has all it should."""
        if not self._cache.synced:
            return None
        for kind in _ORDER:
            subscription = self._subscriptions.get(kind)
            if subscription is not None and (subscription.pending or subscription.owes_all):
                response = self._additions(subscription)
                if response is not None:
                    return response
        # What goes away goes last, and what names it before it.
        for kind in _FULL_STATE:
            subscription = self._subscriptions.get(kind)
            if subscription is not None and subscription.pending:
                return self._removals(subscription)
        return None

    def close(self) -> None:
        """Gives up all subscriptions."""
        for kind, subscription in self._subscriptions.items():
            for name in subscription.names:
                self._cache.unsubscribe(self, self._key(kind, name))
            if subscription.wildcard:
                self._cache.unsubscribe_all(self, kind)
        self._subscriptions.clear()

    def held(self) -> Iterator[Held]:
        """What the client has, as far as the server knows, name by name."""
        for kind, subscription in self._subscriptions.items():
            latest = frozenset(subscription.latest)
            for name in sorted(subscription.names | subscription.sent.keys()):
                resource = subscription.sent.get(name)
                rejection = subscription.rejection
                if resource is None:
                    yield Held(kind, name, Status.MISSING, None, None)
                elif rejection is not None and name in rejection.names:
                    yield Held(kind, name, Status.REFUSED, resource, rejection)
                elif name in latest and subscription.acknowledged != subscription.version:
                    yield Held(kind, name, Status.SENT, resource, None)
                else:
                    yield Held(kind, name, Status.ACKNOWLEDGED, resource, None)

    def _identify(self, node: Any) -> None:
        """Reads the node, which only the first request of a stream must carry."""
        if node.ByteSize() > MAX_NODE_BYTES:
            raise InvalidRequestError(
                f"the node has {node.ByteSize()} bytes; at most {MAX_NODE_BYTES} are taken"
            )
        self._identified = True
        self.node.CopyFrom(node)
        fields = node.metadata.fields
        if "NAMESPACE" in fields:
            self.namespace = fields["NAMESPACE"].string_value or DEFAULT_NAMESPACE

    def _subscribe(self, subscription: _Subscription, requested: Iterable[str]) -> tuple[str, ...]:
        """Takes the complete list of what the client wants now; returns the new names that do not exist."""
        kind = subscription.type
        names = set(requested)
        if names == subscription.names and subscription.was_named and not subscription.wildcard:
            return ()
        _check(names - subscription.names, len(names))
        subscription.was_named |= bool(names)
        wildcard = kind.is_full_state and (WILDCARD in names or not subscription.was_named)
        if kind.is_full_state:
            names.discard(WILDCARD)

        for name in subscription.names - names:
            self._cache.unsubscribe(self, self._key(kind, name))
            subscription.owed.discard(name)
            if not (wildcard and subscription.wildcard):
                # The client forgets what it unsubscribes from: when it asks again it needs it again.
                subscription.sent.pop(name, None)
                subscription.pending.discard(name)
        if subscription.wildcard and not wildcard:
            self._cache.unsubscribe_all(self, kind)
            subscription.sent = {name: sent for name, sent in subscription.sent.items() if name in names}
            subscription.pending &= names
            subscription.owed &= names
            subscription.owes_all = False
        elif wildcard and not subscription.wildcard:
            self._cache.subscribe_all(self, kind)
            subscription.owes_all = True
        added = names - subscription.names
        for name in added:
            self._cache.subscribe(self, self._key(kind, name))
        subscription.pending |= added
        subscription.owed |= added
        subscription.names, subscription.wildcard = names, wildcard
        if added or subscription.owes_all:
            self._asked()
        if not self._cache.synced:
            return ()
        return tuple(sorted(name for name in added if self._get(kind, name) is None))

    def _additions(self, subscription: _Subscription) -> Response | None:
        """A response with what is new or different; what is gone stays in it until the removals."""
        kind = subscription.type
        fresh: list[Resource] = []
        gone: set[str] = set()
        for name in subscription.pending:
            resource = self._get(kind, name)
            sent = subscription.sent.get(name)
            if resource is None:
                if sent is not None:
                    gone.add(name)
            elif sent is None or name in subscription.owed or sent.version != resource.version:
                fresh.append(resource)
        owes_all, subscription.owes_all = subscription.owes_all, False
        subscription.pending.clear()
        subscription.owed.difference_update(resource.name for resource in fresh)
        if kind.is_full_state:
            subscription.pending |= gone
        else:
            # No answer can say that these are gone; should they come back, the client gets them anew.
            for name in gone:
                del subscription.sent[name]
        if not fresh and not owes_all:
            return None
        if kind.is_full_state:
            kept = [subscription.sent[name] for name in gone]
            fresh = [*self._all(subscription), *kept]
        return self._respond(subscription, fresh)

    def _removals(self, subscription: _Subscription) -> Response:
        """A response without what is gone."""
        for name in subscription.pending:
            del subscription.sent[name]
        subscription.pending.clear()
        return self._respond(subscription, self._all(subscription))

    def _respond(self, subscription: _Subscription, resources: list[Resource]) -> Response:
        resources.sort()
        said = wire.content(subscription.type, tuple(resources))
        self._responses += 1
        subscription.nonce = str(self._responses)
        subscription.version = said.version
        subscription.latest = said.names
        subscription.sent.update((resource.name, resource) for resource in resources)
        return Response(
            subscription.type,
            said.version,
            subscription.nonce,
            said.names,
            wire.response(said, subscription.nonce),
        )

    def _all(self, subscription: _Subscription) -> list[Resource]:
        """Every resource that the client subscribes to and that exists."""
        names = set(subscription.names)
        if subscription.wildcard:
            names.update(self._cache.canonical_names())
        found = (self._get(subscription.type, name) for name in names)
        return [resource for resource in found if resource is not None]

    def _get(self, kind: ResourceType, name: str) -> Resource | None:
        return self._cache.get(self._key(kind, name))

    def _key(self, kind: ResourceType, name: str) -> Key:
        return key_of(kind, name, self.namespace)


def _check(added: Collection[str], total: int) -> None:
    """Refuses what goes over the limits."""
    if total > MAX_NAMES:
        raise InvalidRequestError(f"{total} names of one type; at most {MAX_NAMES} are taken")
    if any(len(name) > MAX_NAME_LENGTH for name in added):
        raise InvalidRequestError(f"a resource's name is longer than {MAX_NAME_LENGTH} characters")
