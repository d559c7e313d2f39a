"""One stream's side of the xDS protocol, without I/O: requests and changes in, responses out.

``request`` takes a request, ``changed`` a change of the model, and ``round`` yields responses, each made from what is true
when it is taken: the newest content wins. https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol
"""

import enum
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

from xds_server.ads import node as nodes
from xds_server.ads import wire
from xds_server.ads.introductions import Introduction
from xds_server.ads.limits import Allowance
from xds_server.ads.subscription import MAX_NAMES, Rejection, Sent, Subscription, Update
from xds_server.cache.cache import Cache
from xds_server.errors import InvalidRequestError
from xds_server.model.client import Client
from xds_server.model.identity import Identity
from xds_server.resources.introduction import introduce
from xds_server.resources.names import SERVER_PREFIX
from xds_server.resources.types import Key, Resource, ResourceType

MAX_SERVERS = 32
"""Listeners of servers: one for each address that the servers of a pod listen on."""
WILDCARD_NAMES = 1_000
"""As how many names a wildcard counts. What it covers exists and is shared, so it costs a tenth of as many names."""

_TYPES = {type_.value: type_ for type_ in ResourceType}
_ORDER = tuple(ResourceType)
_REMOVAL_ORDER = (ResourceType.LISTENER, ResourceType.CLUSTER)


class RequestKind(enum.Enum):
    """What a request meant; the value is a label for metrics."""

    SUBSCRIBE = "subscribe"
    ACK = "ack"
    NACK = "nack"
    STALE = "stale"
    UNKNOWN_TYPE = "unknown_type"


class Outcome(NamedTuple):
    """What a request led to.

    Attributes:
        kind: What it meant.
        type: What it was about; None if the type is not served.
        rejection: With a NACK, what was rejected.
        missing: Names that it newly subscribes to and that do not exist (yet).
        is_due: Whether a response may be due at once.
    """

    kind: RequestKind
    type: ResourceType | None
    rejection: Rejection | None = None
    missing: tuple[str, ...] = ()
    is_due: bool = False


class Response(NamedTuple):
    """A response to write.

    Attributes:
        type: Of its resources.
        version: Of its content.
        nonce: By which the client will refer to it.
        names: Of its resources.
        body: Its serialised form.
        introduces: Whether it introduces clusters to routes: ``Session.check_introductions`` has to be called from
            now on.
    """

    type: ResourceType
    version: str
    nonce: str
    names: Sequence[str]
    body: bytes
    introduces: bool


class Status(enum.Enum):
    """What the server knows about a name that a client subscribes to."""

    MISSING = "missing"
    """No such resource exists, so nothing was sent."""
    SENT = "sent"
    """It was sent, and the client has not answered yet."""
    ACKNOWLEDGED = "acknowledged"
    REJECTED = "rejected"


class ResourceStatus(NamedTuple):
    """One name on one stream.

    Attributes:
        type: Of the resource.
        name: As the client spells it.
        status: What the server knows about it.
        resource: What was sent last; None if nothing was.
        rejection: How the client rejected it; None unless the status is REJECTED.
    """

    type: ResourceType
    name: str
    status: Status
    resource: Resource | None
    rejection: Rejection | None


class Session:
    """The state of one stream. Streams of one client are independent: nothing is keyed by node id.

    Args:
        cache: Where resources come from.
        allowance: Bounds what the stream may hold.
        flush: Called after changes, when there may be a response; must not block.
        identity: Who the client is, if its certificate says so.
        address: The IP address that the client connects from; empty if unknown.

    Attributes:
        node: The client as it described itself in the first request.
    """

    def __init__(
        self,
        cache: Cache,
        allowance: Allowance,
        flush: Callable[[], None],
        identity: Identity | None = None,
        address: str = "",
    ) -> None:
        self.node = nodes.UNKNOWN
        self._client = nodes.UNKNOWN.client
        self._cache = cache
        self._allowance = allowance
        self._flush = flush
        self._identity = identity
        self._address = address
        self._identified = False
        self._closed = False
        self._responses = 0
        self._subscriptions: dict[ResourceType, Subscription] = {}

    @property
    def client(self) -> Client:
        """The client that resources are built for."""
        return self._client

    @property
    def has_rejections(self) -> bool:
        """Whether the client rejected anything that it was sent last."""
        return any(subscription.has_rejections for subscription in self._subscriptions.values())

    def request(self, request: Any) -> Outcome:
        """Applies a DiscoveryRequest.

        Raises:
            InvalidRequestError: It has no type, or is over a limit.
            ForbiddenError: The client claims to be somebody else than its certificate says.
            ExhaustedError: It asks for more than the client may hold.
        """
        self._check(request)
        type_ = _TYPES.get(request.type_url)
        if type_ is None:
            return Outcome(RequestKind.UNKNOWN_TYPE, None)
        if self._closed:
            return Outcome(RequestKind.STALE, type_)
        subscription = self._subscriptions.get(type_)
        if subscription is None:
            subscription = self._subscriptions[type_] = Subscription(type_)

        answered = subscription.answer(request.response_nonce)
        rejection = None
        if answered is not None and request.HasField("error_detail"):
            rejection = subscription.reject(answered, request.error_detail.message)
        elif answered is not None:
            subscription.accept(answered)

        if subscription.is_stale(request.response_nonce):
            subscription.record_stale(request.resource_names)
            return Outcome(RequestKind.NACK if rejection else RequestKind.STALE, type_, rejection)
        kind = RequestKind.NACK if rejection else RequestKind.ACK if answered else RequestKind.SUBSCRIBE
        update = subscription.plan(request.resource_names)
        if update is None:
            return Outcome(kind, type_, rejection)
        missing = self._subscribe(subscription, update)
        return Outcome(kind, type_, rejection, missing, is_due=subscription.has_pending)

    def changed(self, key: Key) -> None:
        """Records that a resource may differ from what the client has."""
        self._subscriptions[key.type].pending.setdefault(key.name, False)

    def flush(self) -> None:
        """Passes on that all changes of a publication have been recorded."""
        self._flush()

    def relocate(self) -> None:
        """Follows the client to the zone that its node is in now."""
        client = self._cache.locate(self.node.client)
        if client == self._client or self._closed:
            return
        self._unsubscribe_from_everything()
        self._client = client
        for type_, subscription in self._subscriptions.items():
            for name in subscription.names:
                self._cache.subscribe(self, Key(type_, name))
            if subscription.wildcard:
                self._cache.subscribe_all(self, type_)
            for name in subscription.names | subscription.sent.keys():
                subscription.pending.setdefault(name, False)
        self._flush()

    def check_introductions(self) -> bool:
        """Finds the routes whose clusters the client has set up; returns whether to check again.

        To be called some tens of times a second while there are introductions, but not while a response is being
        written: what the client has not read yet takes no time.
        """
        routes = self._subscriptions.get(ResourceType.ROUTE)
        if routes is None or self._closed:
            return False
        answered = {
            type_: found.answered() if (found := self._subscriptions.get(type_)) else set()
            for type_ in (ResourceType.ROUTE, ResourceType.CLUSTER, ResourceType.ENDPOINTS)
        }
        set_up = answered[ResourceType.CLUSTER] & answered[ResourceType.ENDPOINTS]
        for name, introduction in routes.held.items():
            is_ready = name in answered[ResourceType.ROUTE] and introduction.clusters <= set_up
            introduction.check(is_ready=is_ready)
        clusters = self._subscriptions.get(ResourceType.CLUSTER)
        # Removals of clusters have waited, too.
        if routes.release() or (not routes.held and clusters is not None and clusters.removing):
            self._flush()
        return bool(routes.held)

    def round(self) -> Iterator[Response]:
        """The responses that are due, each made when it is taken; at most two of each type.

        What is new or different goes out first, each type before the types that refer to it. What is gone goes out
        last, in the opposite order, so that nothing refers to a resource that the client was told to drop; clusters
        wait for routes that are being changed in two steps (``introduction``). Changes
        that are recorded meanwhile are included where they still can be, and are otherwise left for the next round.
        """
        if not self._cache.synced:
            return
        found = map(self._subscriptions.get, _ORDER)
        for subscription in [each for each in found if each is not None and each.has_pending]:
            response = self._additions(subscription)
            if response is not None:
                yield response
        routes = self._subscriptions.get(ResourceType.ROUTE)
        for type_ in _REMOVAL_ORDER:
            if type_ is ResourceType.CLUSTER and routes is not None and routes.held:
                return
            removed = self._subscriptions.get(type_)
            if removed is not None and removed.removing:
                removed.take_removals()
                yield self._respond(removed, self._full_state(removed))

    def close(self) -> None:
        """Ends all subscriptions, for good."""
        if self._closed:
            return
        self._closed = True
        try:
            self._unsubscribe_from_everything()
        finally:
            self._subscriptions.clear()
            self._allowance.close()
            # Breaks the cycle between the session and its stream, so that both are freed without garbage collection.
            self._flush = _nobody

    def statuses(self) -> Iterator[ResourceStatus]:
        """What the client has, as far as the server knows, name by name."""
        for type_, subscription in self._subscriptions.items():
            for name, resource, rejection, unread in subscription.statuses():
                if resource is None:
                    yield ResourceStatus(type_, name, Status.MISSING, None, None)
                elif rejection is not None:
                    yield ResourceStatus(type_, name, Status.REJECTED, resource, rejection)
                elif unread:
                    yield ResourceStatus(type_, name, Status.SENT, resource, None)
                else:
                    yield ResourceStatus(type_, name, Status.ACKNOWLEDGED, resource, None)

    def _check(self, request: Any) -> None:
        """Checks a request by itself, and reads the node from the first one, which alone has to carry it."""
        if not self._identified:
            self.node = nodes.read(request.node, self._identity, self._address)
            self._client = self._cache.locate(self.node.client)
            self._identified = True
        if not request.type_url:
            raise InvalidRequestError("a DiscoveryRequest on an aggregated stream must have a type_url")
        if (number := len(request.resource_names)) > MAX_NAMES:
            raise InvalidRequestError(f"{number} names of one type; at most {MAX_NAMES} are allowed")

    def _subscribe(self, subscription: Subscription, update: Update) -> tuple[str, ...]:
        """Subscribes to what a request asks for; returns the names that it asks for and that do not exist."""
        type_ = subscription.type
        wildcards = update.wildcard_began + update.wildcard_ended
        self._allowance.change(len(update.added) + len(update.removed) + wildcards * WILDCARD_NAMES)
        if type_ is ResourceType.LISTENER and update.added:
            _check_servers(update.names)
        self._allowance.hold(self._names_held(subscription, update))
        for name in update.removed:
            self._cache.unsubscribe(self, Key(type_, name))
        for name in update.added:
            self._cache.subscribe(self, Key(type_, name))
        if update.wildcard_began:
            self._cache.subscribe_all(self, type_)
        elif update.wildcard_ended:
            self._cache.unsubscribe_all(self, type_)
        subscription.apply(update)
        if not self._cache.synced:
            return ()
        return tuple(sorted(name for name in update.requested if self._find(type_, name) is None))

    def _unsubscribe_from_everything(self) -> None:
        for type_, subscription in self._subscriptions.items():
            for name in subscription.names:
                self._cache.unsubscribe(self, Key(type_, name))
            if subscription.wildcard:
                self._cache.unsubscribe_all(self, type_)

    def _names_held(self, subscription: Subscription, update: Update) -> int:
        """How many names the stream would subscribe to, of all types."""
        others = [s for s in self._subscriptions.values() if s is not subscription]
        wildcards = update.wildcard + sum(s.wildcard for s in others)
        return len(update.names) + sum(len(s.names) for s in others) + wildcards * WILDCARD_NAMES

    def _additions(self, subscription: Subscription) -> Response | None:
        """A response with what is new or different; None if there is nothing of that kind."""
        type_ = subscription.type
        fresh = subscription.take_additions(lambda name: self._find(type_, name))
        if not fresh and not subscription.send_full_state:
            return None
        if type_ is ResourceType.ROUTE:
            fresh = [self._first_step(subscription, route) for route in fresh]
        return self._respond(subscription, self._full_state(subscription) if type_.is_full_state else fresh)

    def _first_step(self, routes: Subscription, wanted: Resource) -> Resource:
        """Returns the route, or its first step if it names clusters that are new to the client."""
        sent = routes.sent.get(wanted.name)
        held = routes.held.pop(wanted.name, None)
        # What a client has after it rejected a route is not known: a first step could repeat what it rejected.
        is_known = sent is not None and not routes.is_rejected(wanted.name)
        step = introduce(sent, wanted) if sent is not None and is_known else None
        if sent is None or step is None:
            return wanted
        if held is not None and held.is_over and held.wanted.version != sent.version:
            # A route that names yet another cluster every few moments would be introduced for ever. So what was
            # introduced comes first, and the newest form is introduced after it.
            routes.held[wanted.name] = Introduction(held.wanted, frozenset())
            return held.wanted
        routes.held[wanted.name] = Introduction(wanted, step.clusters)
        return step.route

    def _full_state(self, subscription: Subscription) -> list[Resource]:
        """Every resource that the client subscribes to and that exists, or whose removal is not due yet."""
        names = set(subscription.names)
        if subscription.wildcard:
            names.update(self._cache.canonical_names())
        resources = dict(subscription.sent)
        for name in names:
            resource = self._find(subscription.type, name)
            if resource is not None:
                resources[name] = resource
        return list(resources.values())

    def _respond(self, subscription: Subscription, resources: list[Resource]) -> Response:
        resources.sort()
        content = wire.assemble(subscription.type, tuple(resources))
        self._responses += 1
        nonce = str(self._responses)
        subscription.record_sent(nonce, Sent(content.version, content.names), resources)
        return Response(
            subscription.type,
            content.version,
            nonce,
            content.names,
            wire.response(content, nonce),
            introduces=not subscription.held.keys().isdisjoint(content.names),
        )

    def _find(self, type_: ResourceType, name: str) -> Resource | None:
        return self._cache.get(Key(type_, name), self._client)


def _nobody() -> None:
    """Is called instead when nobody is interested any more."""


def _check_servers(names: Collection[str]) -> None:
    """Each Listener of a server is made for one client alone, so there may be few."""
    number = sum(name.startswith(SERVER_PREFIX) for name in names)
    if number > MAX_SERVERS:
        raise InvalidRequestError(f"{number} Listeners of servers; at most {MAX_SERVERS} are allowed")
