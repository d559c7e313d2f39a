"""What one stream subscribes to of one type, what it was sent, and what has to be sent to it. Pure.

A subscription keeps sets of names, not a queue of messages: however slow a stream is, it has one set of pending names,
and a response is made of what is true when it can be written.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from xds_server.ads.wire import Content
from xds_server.errors import InvalidRequestError
from xds_server.resources.names import parse_canonical
from xds_server.resources.types import Resource, ResourceType

WILDCARD = "*"
"""Subscribes to every canonical name of a type; no resource has this name."""
MAX_NAMES = 10_000
"""Of one type on one stream."""
MAX_NAME_LENGTH = 512
"""Kubernetes allows no longer names: a service, a namespace, a cluster domain and a port's name."""
MAX_ERROR_DETAIL_LENGTH = 1_000
"""Of a client's reason to reject a response, which is kept until the client accepts another."""
MAX_UNANSWERED = 16
"""Responses whose answers are told apart. An answer to an earlier one acknowledges nothing and rejects nothing."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A response that the client rejected.

    Attributes:
        version: Of the response.
        names: Of the resources in it; only the message tells which of them is at fault.
        message: Of the client.
    """

    version: str
    names: Sequence[str]
    message: str


class Update(NamedTuple):
    """How a request changes a subscription.

    Attributes:
        names: What the client names now.
        wildcard: Whether it subscribes to everything now.
        was_named: Whether it has named something by now, the wildcard included.
        added: Names that are new.
        removed: Names that are no longer subscribed to.
        requested: Names that have to be sent, even if the client has had them before.
        wildcard_began: Whether it now subscribes to everything, and did not before.
        wildcard_ended: The opposite.
    """

    names: set[str]
    wildcard: bool
    was_named: bool
    added: set[str]
    removed: set[str]
    requested: set[str]
    wildcard_began: bool
    wildcard_ended: bool


class Subscription:
    """One type on one stream.

    Attributes:
        type: The type.
        names: What the client named.
        wildcard: Whether it subscribes to every canonical name.
        sent: The resources that the client was sent, of those that it subscribes to.
        pending: Names that may have to be sent, or whose removal has to be sent; True if the resource has to be sent
            even though its version was sent before.
        send_full_state: Whether everything has to be sent, even if that is nothing.
    """

    def __init__(self, type_: ResourceType) -> None:
        self.type = type_
        self.names: set[str] = set()
        self.wildcard = False
        self.sent: dict[str, Resource] = {}
        self.pending: dict[str, bool] = {}
        self.send_full_state = False
        self._was_named = False
        self._nonce = ""
        self._unanswered: dict[str, Content] = {}
        self._rejections: dict[str, Rejection] = {}
        self._removed_by_stale: set[str] = set()

    @property
    def has_pending(self) -> bool:
        """Whether there may be a response to send."""
        return bool(self.pending) or self.send_full_state

    # ---- requests ----

    def answer(self, nonce: str) -> Content | None:
        """Finds the response that a request answers, if it is the first request with its nonce.

        Responses sent before that one count as answered too.
        """
        content = self._unanswered.get(nonce)
        if content is not None:
            for earlier in list(self._unanswered):
                del self._unanswered[earlier]
                if earlier == nonce:
                    break
        return content

    def accept(self, response: Content) -> None:
        """Records that the client accepted a response."""
        if self._rejections:
            for name in response.names:
                self._rejections.pop(name, None)

    def reject(self, response: Content, message: str) -> Rejection:
        """Records that the client rejected a response."""
        rejection = Rejection(response.version, response.names, message[:MAX_ERROR_DETAIL_LENGTH])
        self._rejections.update((name, rejection) for name in response.names if name in self.sent)
        return rejection

    def is_stale(self, nonce: str) -> bool:
        """Whether a request with this nonce was sent before the client had seen the last response.

        A client without a nonce of this stream has just connected.
        """
        return bool(nonce and self._nonce and nonce != self._nonce)

    def record_stale(self, requested: Collection[str]) -> None:
        """Records a stale request. It is not acted upon: the answer to the last response repeats all names.

        But a client that drops a name and subscribes to it again in between has to be sent it again, even if it is in a
        response on its way: the client may read that response while it does not want the name, and drop the resource.
        """
        self._was_named |= bool(requested)
        self._removed_by_stale |= self.names.difference(requested)

    def plan(self, requested: Iterable[str]) -> Update | None:
        """Works out what the complete list of names of a request changes; None if nothing. Changes nothing itself.

        Raises:
            InvalidRequestError: It is over a limit.
        """
        names = set(requested)
        if names == self.names and not self._removed_by_stale and self._was_named and not self.wildcard:
            return None
        _check(names - self.names, len(names))
        was_named = self._was_named or bool(names)
        # For full-state types, an empty list means everything until the client has named something.
        wildcard = self.type.is_full_state and (WILDCARD in names or not was_named)
        if self.type.is_full_state:
            names.discard(WILDCARD)
        return Update(
            names=names,
            wildcard=wildcard,
            was_named=was_named,
            added=names - self.names,
            removed=self.names - names,
            requested=names - (self.names - self._removed_by_stale),
            wildcard_began=wildcard and not self.wildcard,
            wildcard_ended=self.wildcard and not wildcard,
        )

    def apply(self, update: Update) -> None:
        """Applies what was planned."""
        self.names, self.wildcard = update.names, update.wildcard
        self._was_named = update.was_named
        self._removed_by_stale.clear()
        self._drop(update)
        self.pending.update(dict.fromkeys(update.requested, True))
        if update.wildcard_began:
            self.send_full_state = True
        elif not (self.names or self.wildcard):
            self.send_full_state = False
        elif self.type.is_full_state and not self._unread().isdisjoint(update.requested):
            # The client dropped these names and reads them all the same: it has to be told if they are gone by now.
            self.send_full_state = True

    def _drop(self, update: Update) -> None:
        """Forgets what the client dropped: it drops the resource, and needs it again if it subscribes again."""
        for name in update.removed:
            if self.wildcard and not update.wildcard_began:
                if parse_canonical(name):
                    continue
                # The client can't know that the wildcard does not cover this name: a response without it says so.
                self.send_full_state |= name in self.sent
            self._forget(name)
            self.pending.pop(name, None)
        if update.wildcard_ended:
            for name in self.sent.keys() - self.names:
                self._forget(name)
            self.pending = {name: again for name, again in self.pending.items() if name in self.names}

    # ---- responses ----

    def take_additions(self, find: Callable[[str], Resource | None]) -> tuple[list[Resource], list[Resource]]:
        """Takes what is pending and has to be sent; removals of a full-state type stay pending.

        Returns:
            Resources that are new or different; and those that are gone, but stay in the response until the removals.
        """
        fresh: list[Resource] = []
        gone: list[Resource] = []
        for name, again in self.pending.items():
            resource, sent = find(name), self.sent.get(name)
            if resource is None:
                if sent is not None:
                    gone.append(sent)
            elif again or sent is None or sent.version != resource.version:
                fresh.append(resource)
        self.pending.clear()
        if self.type.is_full_state:
            self.pending.update((resource.name, False) for resource in gone)
        else:
            # No response can say that these are gone. If they come back, the client is sent them again.
            for resource in gone:
                self._forget(resource.name)
        return fresh, gone

    def take_removals(self) -> None:
        """Takes the pending removals."""
        for name in self.pending:
            self._forget(name)
        self.pending.clear()

    def record_sent(self, nonce: str, content: Content, resources: Iterable[Resource]) -> None:
        """Records a response."""
        self.send_full_state = False
        self._nonce = nonce
        self._unanswered[nonce] = content
        if len(self._unanswered) > MAX_UNANSWERED:
            del self._unanswered[next(iter(self._unanswered))]
        self.sent.update((resource.name, resource) for resource in resources)

    # ---- for people who look ----

    def statuses(self) -> Iterator[tuple[str, Resource | None, Rejection | None, bool]]:
        """For every name: what was sent last, how it was rejected, and whether the client may not have read it yet."""
        unread = self._unread()
        for name in sorted(self.names | self.sent.keys()):
            yield name, self.sent.get(name), self._rejections.get(name), name in unread

    def _unread(self) -> set[str]:
        """Names in responses that the client may still have to read."""
        return {name for content in self._unanswered.values() for name in content.names}

    def _forget(self, name: str) -> None:
        self.sent.pop(name, None)
        self._rejections.pop(name, None)


def _check(added: Collection[str], total: int) -> None:
    """Refuses names over the limits."""
    if total > MAX_NAMES:
        raise InvalidRequestError(f"{total} names of one type; at most {MAX_NAMES} are allowed")
    if any(len(name) > MAX_NAME_LENGTH for name in added):
        raise InvalidRequestError(f"a resource name is longer than {MAX_NAME_LENGTH} characters")
