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
from xds_server.resources import names as spellings
from xds_server.resources.types import Resource, ResourceType

MAX_NAMES = 10_000
"""Subscriptions of one type on one stream."""
MAX_NAME_LENGTH = 2_048
MAX_NODE_BYTES = 65_536
"""Of a client's description of itself, which is kept as long as its stream."""
MAX_WORDS_LENGTH = 2_000
"""Of a client's reason to refuse a response, which is kept until it accepts another."""
MAX_UNANSWERED = 16
"""Responses of one type whose answers are told apart; of an earlier one it is not known what it was about."""
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


class _Unanswered(NamedTuple):
    """A response to which the client has not said yet whether it takes it."""

    nonce: str
    version: str
    names: Sequence[str]


@dataclass(slots=True)
class _Subscription:
    """One type's state.

    Attributes:
        names: What the client named.
        wildcard: Whether it wants every canonical name.
        was_named: Whether it ever named something: from then on an empty list means nothing, not everything.
        nonce: Of the last response; empty before the first.
        unanswered: The last responses that it has neither accepted nor refused, in their order.
        rejections: The response with which it refused a name, until it accepts one with that name.
        sent: What it was sent of what it subscribes to.
        pending: Names that may have to be sent, or to be told gone.
        owed: Those that have to be sent although the client may have them.
        owes_all: Whether the client is still to be told all that there is for it, even if that is nothing.
        given_up: Names that a stale request did without: the client has forgotten what it was sent of them.
    """

    type: ResourceType
    names: set[str] = field(default_factory=set)
    wildcard: bool = False
    was_named: bool = False
    nonce: str = ""
    unanswered: list[_Unanswered] = field(default_factory=list)
    rejections: dict[str, Rejection] = field(default_factory=dict)
    sent: dict[str, Resource] = field(default_factory=dict)
    pending: set[str] = field(default_factory=set)
    owed: set[str] = field(default_factory=set)
    owes_all: bool = False
    given_up: set[str] = field(default_factory=set)

    def answered(self, nonce: str) -> _Unanswered | None:
        """The response that is answered by the first request with its nonce; what was sent before it is, too."""
        for number, response in enumerate(self.unanswered, start=1):
            if response.nonce == nonce:
                del self.unanswered[:number]
                return response
        return None

    def accept(self, response: _Unanswered) -> None:
        """Takes the news that the client takes a response."""
        if self.rejections:
            for name in response.names:
                self.rejections.pop(name, None)

    def reject(self, response: _Unanswered, words: str) -> Rejection:
        """Takes the news that the client refuses a response."""
        rejection = Rejection(response.version, response.names, words[:MAX_WORDS_LENGTH])
        self.rejections.update((name, rejection) for name in response.names if name in self.sent)
        return rejection

    def cross(self, requested: Collection[str]) -> None:
        """Takes a request that was sent before the client had seen the last response.

        It is not acted upon, as the answer to that response has all names again. But who gives up a name and asks
        for it anew in between must be sent it anew, even if it is in what the client was still to read: it may have
        read that while it did not want it.
        """
        self.was_named |= bool(requested)
        self.given_up |= self.names.difference(requested)

    def unread(self) -> set[str]:
        """Names of what the client may still have to read."""
        return {name for response in self.unanswered for name in response.names}

    def forget(self, name: str) -> None:
        """Drops what was sent of a name."""
        self.sent.pop(name, None)
        self.rejections.pop(name, None)


class Session:
    """The state of one stream. Streams of one client are independent: nothing here is keyed by node id.

    Args:
        cache: Where resources come from.
        asked: Called when ``next`` may have something because the client asked; must not block.
        settled: The same because something changed, which may wait a little while more changes gather.
    """

    def __init__(self, cache: Cache, *, asked: Callable[[], None], settled: Callable[[], None]) -> None:
        self.node = base_pb2.Node()
        self.namespace = DEFAULT_NAMESPACE
        self._cache = cache
        self._asked = asked
        self._settled = settled
        self._identified = False
        self._closed = False
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
        if self._closed:
            # The stream has been given up, and is about to end.
            return Outcome(Kind.STALE, kind)
        subscription = self._subscriptions.get(kind)
        if subscription is None:
            subscription = self._subscriptions[kind] = _Subscription(kind)
        nonce = request.response_nonce
        answered = subscription.answered(nonce)
        rejection = None
        if answered is not None and request.HasField("error_detail"):
            rejection = subscription.reject(answered, request.error_detail.message)
        elif answered is not None:
            subscription.accept(answered)
        if nonce and subscription.nonce and nonce != subscription.nonce:
            subscription.cross(request.resource_names)
            return Outcome(Kind.NACK if rejection else Kind.STALE, kind, rejection=rejection)
        missing = self._subscribe(subscription, request.resource_names)
        meant = Kind.NACK if rejection else Kind.ACK if answered else Kind.SUBSCRIBE
        return Outcome(meant, kind, missing, rejection)

    def changed(self, key: Key) -> None:
        """Takes the news that a resource may differ from what the client has."""
        self._subscriptions[key.type].pending.add(key.name)

    def settled(self) -> None:
        """Takes the news that this was all that changed at once."""
        self._settled()

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
        """Gives up all subscriptions, for good."""
        self._closed = True
        for kind, subscription in self._subscriptions.items():
            for name in subscription.names:
                self._cache.unsubscribe(self, self._key(kind, name))
            if subscription.wildcard:
                self._cache.unsubscribe_all(self, kind)
        self._subscriptions.clear()
        # Whoever is called holds this session: neither is to wait for the garbage collector.
        self._asked = self._settled = _nobody

    def held(self) -> Iterator[Held]:
        """What the client has, as far as the server knows, name by name."""
        for kind, subscription in self._subscriptions.items():
            unread = subscription.unread()
            for name in sorted(subscription.names | subscription.sent.keys()):
                resource = subscription.sent.get(name)
                rejection = subscription.rejections.get(name)
                if resource is None:
                    yield Held(kind, name, Status.MISSING, None, None)
                elif rejection is not None:
                    yield Held(kind, name, Status.REFUSED, resource, rejection)
                elif name in unread:
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
        as_before = names == subscription.names and not subscription.given_up
        if as_before and subscription.was_named and not subscription.wildcard:
            return ()
        _check(names - subscription.names, len(names))
        subscription.was_named |= bool(names)
        wildcard = kind.is_full_state and (WILDCARD in names or not subscription.was_named)
        if kind.is_full_state:
            names.discard(WILDCARD)

        self._unsubscribe(subscription, names, wildcard=wildcard)
        if wildcard and not subscription.wildcard:
            self._cache.subscribe_all(self, kind)
            subscription.owes_all = True
        added = names - (subscription.names - subscription.given_up)
        subscription.given_up.clear()
        for name in added:
            self._cache.subscribe(self, self._key(kind, name))
        subscription.pending |= added
        subscription.owed |= added
        if kind.is_full_state and not added.isdisjoint(subscription.unread()):
            # It had given them up and reads them all the same: if they are gone by now, it has to be told.
            subscription.owes_all = True
        if not (names or wildcard):
            subscription.owes_all = False
        subscription.names, subscription.wildcard = names, wildcard
        if added or subscription.owes_all:
            self._asked()
        if not self._cache.synced:
            return ()
        return tuple(sorted(name for name in added if self._get(kind, name) is None))

    def _unsubscribe(self, subscription: _Subscription, names: set[str], *, wildcard: bool) -> None:
        """Drops what the client does not want any more: it forgets that, and needs it again when it asks again."""
        kind = subscription.type
        for name in subscription.names - names:
            self._cache.unsubscribe(self, self._key(kind, name))
            subscription.owed.discard(name)
            if wildcard and subscription.wildcard:
                if spellings.parse_canonical(name):
                    continue
                # The client can't know that the wildcard does not stand for it: a response without it says so.
                subscription.owes_all |= name in subscription.sent
            subscription.forget(name)
            subscription.pending.discard(name)
        if subscription.wildcard and not wildcard:
            self._cache.unsubscribe_all(self, kind)
            for name in subscription.sent.keys() - names:
                subscription.forget(name)
            subscription.pending &= names
            subscription.owed &= names
            subscription.owes_all = False

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
                subscription.forget(name)
        if not fresh and not owes_all:
            return None
        if kind.is_full_state:
            kept = [subscription.sent[name] for name in gone]
            fresh = [*self._all(subscription), *kept]
        return self._respond(subscription, fresh)

    def _removals(self, subscription: _Subscription) -> Response:
        """A response without what is gone."""
        for name in subscription.pending:
            subscription.forget(name)
        subscription.pending.clear()
        return self._respond(subscription, self._all(subscription))

    def _respond(self, subscription: _Subscription, resources: list[Resource]) -> Response:
        resources.sort()
        said = wire.content(subscription.type, tuple(resources))
        self._responses += 1
        subscription.nonce = str(self._responses)
        subscription.unanswered.append(_Unanswered(subscription.nonce, said.version, said.names))
        del subscription.unanswered[:-MAX_UNANSWERED]
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


def _nobody() -> None:
    """Is called when nobody listens any more."""


def _check(added: Collection[str], total: int) -> None:
    """Refuses what goes over the limits."""
    if total > MAX_NAMES:
        raise InvalidRequestError(f"{total} names of one type; at most {MAX_NAMES} are taken")
    if any(len(name) > MAX_NAME_LENGTH for name in added):
        raise InvalidRequestError(f"a resource's name is longer than {MAX_NAME_LENGTH} characters")
