"""What one stream subscribes to of one type, what it was sent, and what has to be sent to it. Pure.

A subscription keeps sets of names, not a queue of messages: however slow a stream is, it has one set of pending names,
and a response is made of what is true when it can be written.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from xds_server.ads.introductions import Introduction
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


class Sent(NamedTuple):
    """A response that was sent.

    Attributes:
        version: Of its content.
        names: Of its resources.
    """

    version: str
    names: Sequence[str]


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
        pending: Names that may have to be sent; True if the resource has to be sent even though its version was sent
            before.
        removing: Names of resources of a full-state type that are gone, and stay in responses until the removals are
            sent.
        held: The routes that were sent in a form that introduces clusters, by name; what they should be waits until
            that is over.
        send_full_state: Whether everything has to be sent, even if that is nothing.
    """

    def __init__(self, type_: ResourceType) -> None:
        self.type = type_
        self.names: set[str] = set()
        self.wildcard = False
        self.sent: dict[str, Resource] = {}
        self.pending: dict[str, bool] = {}
        self.removing: set[str] = set()
        self.held: dict[str, Introduction] = {}
        self.send_full_state = False
        self._was_named = False
        self._nonce = ""
        self._unanswered: dict[str, Sent] = {}
        self._rejections: dict[str, Rejection] = {}
        self._removed_by_stale: set[str] = set()
        self._wildcard_removed_by_stale = False

    @property
    def has_pending(self) -> bool:
        """Whether there may be a response to send."""
        return bool(self.pending or self.removing) or self.send_full_state

    @property
    def has_rejections(self) -> bool:
        """Whether the client rejected any of the resources that it was sent last."""
        return bool(self._rejections)

    # ---- requests ----

    def answer(self, nonce: str) -> Sent | None:
        """Finds the response that a request answers, if it is the first request with its nonce.

        Responses sent before that one count as answered too.
        """
        response = self._unanswered.get(nonce)
        if response is not None:
            for earlier in list(self._unanswered):
                del self._unanswered[earlier]
                if earlier == nonce:
                    break
        return response

    def accept(self, response: Sent) -> None:
        """Records that the client accepted a response."""
        if self._rejections:
            for name in response.names:
                self._rejections.pop(name, None)

    def reject(self, response: Sent, message: str) -> Rejection:
        """Records that the client rejected a response."""
        rejection = Rejection(response.version, response.names, message[:MAX_ERROR_DETAIL_LENGTH])
        self._rejections.update((name, rejection) for name in response.names if name in self.sent)
        return rejection

    def is_rejected(self, name: str) -> bool:
        """Whether the client rejected what it was sent of a name last."""
        return name in self._rejections

    def is_stale(self, nonce: str) -> bool:
        """Whether a request with this nonce was sent before the client had seen the last response.

        A request without a nonce is never stale, nor is any before the first response.
        """
        return bool(nonce and self._nonce and nonce != self._nonce)

    def record_stale(self, requested: Collection[str]) -> None:
        """Records a stale request. It is not acted upon: the answer to the last response repeats all names.

        But a client that drops a name and subscribes to it again in between has to be sent it again, even if it is in a
        response on its way: the client may read that response while it does not want the name, and drop the resource.
        The same holds for the wildcard.
        """
        self._was_named |= bool(requested)
        self._removed_by_stale |= self.names.difference(requested)
        self._wildcard_removed_by_stale |= self.wildcard and not self._means_everything(requested)

    def _means_everything(self, requested: Collection[str]) -> bool:
        """Whether a list of names includes the wildcard: for full-state types, "*", or nothing ever named."""
        return self.type.is_full_state and (WILDCARD in requested or not (requested or self._was_named))

    def plan(self, requested: Collection[str]) -> Update | None:
        """Works out what the complete list of names of a request changes; None if nothing. Changes nothing itself.

        Raises:
            InvalidRequestError: It is over a limit.
        """
        names = set(requested)
        is_stale = self._removed_by_stale or self._wildcard_removed_by_stale
        if names == self.names and self._was_named and not (self.wildcard or is_stale):
            # By far the most frequent request: an acknowledgement.
            return None
        if any(len(name) > MAX_NAME_LENGTH for name in names - self.names):
            raise InvalidRequestError(f"a resource name is longer than {MAX_NAME_LENGTH} characters")
        wildcard = self._means_everything(names)
        was_named = self._was_named or bool(names)
        if self.type.is_full_state:
            names.discard(WILDCARD)
        is_unchanged = names == self.names and wildcard == self.wildcard and was_named == self._was_named
        if is_unchanged and not is_stale:
            return None
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
        self._drop(update)
        self.pending.update(dict.fromkeys(update.requested, True))
        if not (self.names or self.wildcard):
            self.send_full_state = False
        elif update.wildcard_began or (self.wildcard and self._wildcard_removed_by_stale):
            self.send_full_state = True
        elif self.type.is_full_state and not self._unread().isdisjoint(update.requested):
            # A response still in flight may contain these names. If they were deleted meanwhile, only another full
            # response says so.
            self.send_full_state = True
        self._removed_by_stale.clear()
        self._wildcard_removed_by_stale = False

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
            self.removing.discard(name)
        if update.wildcard_ended:
            for name in self.sent.keys() - self.names:
                self._forget(name)
            self.pending = {name: again for name, again in self.pending.items() if name in self.names}
            self.removing &= self.names

    # ---- responses ----

    def take_additions(self, find: Callable[[str], Resource | None]) -> list[Resource]:
        """Takes what is pending; returns the resources that are new or different, and marks those that are gone."""
        fresh: list[Resource] = []
        waiting: dict[str, bool] = {}
        for name, again in self.pending.items():
            held = self.held.get(name)
            if held is not None and not (held.is_over or again):
                waiting[name] = again
                continue
            resource, sent = find(name), self.sent.get(name)
            if resource is not None:
                self.removing.discard(name)
                if again or sent is None or sent.version != resource.version:
                    fresh.append(resource)
            elif sent is not None and self.type.is_full_state:
                self.removing.add(name)
            elif sent is not None:
                # No response can say that it is gone. If it comes back, the client is sent it again.
                self._forget(name)
        self.pending = waiting
        return fresh

    def release(self) -> bool:
        """Makes the held routes whose introduction is over pending; returns whether there are any."""
        over = [name for name, held in self.held.items() if held.is_over]
        for name in over:
            self.pending.setdefault(name, False)
        return bool(over)

    def take_removals(self) -> None:
        """Forgets the resources whose removal is about to be sent."""
        for name in self.removing:
            self._forget(name)
        self.removing.clear()

    def record_sent(self, nonce: str, response: Sent, resources: Iterable[Resource]) -> None:
        """Records a response."""
        self.send_full_state = False
        self._nonce = nonce
        self._unanswered[nonce] = response
        if len(self._unanswered) > MAX_UNANSWERED:
            del self._unanswered[next(iter(self._unanswered))]
        self.sent.update((resource.name, resource) for resource in resources)

    # ---- for people who look ----

    def statuses(self) -> Iterator[tuple[str, Resource | None, Rejection | None, bool]]:
        """For every name: what was sent last, how it was rejected, and whether the client may not have read it yet."""
        unread = self._unread()
        for name in sorted(self.names | self.sent.keys()):
            yield name, self.sent.get(name), self._rejections.get(name), name in unread

    def answered(self) -> set[str]:
        """Names of the resources that were sent, in responses that the client has answered."""
        return self.sent.keys() - self._unread()

    def _unread(self) -> set[str]:
        """Names in responses that the client may still have to read."""
        return {name for response in self._unanswered.values() for name in response.names}

    def _forget(self, name: str) -> None:
        """Forgets what the client was sent of a name."""
        self.sent.pop(name, None)
        self.held.pop(name, None)
        self._rejections.pop(name, None)
