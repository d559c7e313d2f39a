"""Merges what lists and watch events say about one collection, so that neither undoes the other. Pure.

A list and a watch run side by side. A list describes the collection at one version, but takes time to arrive; events
that are newer may arrive before it, and events that are older after it. Versions tell which is which.
"""

from collections.abc import Iterable

from xds_server.objects.kinds import Collection
from xds_server.objects.meta import Key, Object, key
from xds_server.source import Target


class Mirror:
    """Applies the lists and events of one collection. It is not thread-safe: it belongs to the event loop.

    Attributes:
        collection: Which one.
        confirmed: When the state was last known to be current, as of ``time.monotonic``; -inf before the first time.
    """

    def __init__(self, target: Target, collection: Collection) -> None:
        self.confirmed = float("-inf")
        self._target = target
        self.collection = collection
        self._listed: str | None = None
        self._journal: dict[Key, tuple[str, Object | None]] | None = None

    def list_began(self) -> None:
        """Journals events from now on: the list that is about to be requested may not have them yet."""
        self._journal = {}

    def list_failed(self) -> None:
        """Drops the journal; the state stays."""
        self._journal = None

    def listed(self, version: str, items: Iterable[Object], malformed: Iterable[Key], now: float) -> None:
        """Applies a list, and again the events that came while it was read and are newer.

        Args:
            version: The version that the list describes.
            items: All objects that could be decoded.
            malformed: The keys of those that could not: they keep their last valid versions.
            now: The time of confirmation.
        """
        state = {name: item for name in malformed if (item := self._target.get(self.collection, name))}
        state.update((key(item), item) for item in items)
        for name, (at, item) in (self._journal or {}).items():
            if not is_newer(at, version):
                continue
            if item is None:
                state.pop(name, None)
            else:
                state[name] = item
        self._listed, self._journal = version, None
        self._target.replace({self.collection: state.values()})
        self.confirmed = now

    def changed(self, version: str, name: Key, item: Object | None, now: float) -> None:
        """Applies an event, unless the last list is as new as that.

        Args:
            version: The version of the object that the event has.
            name: Which object.
            item: The object as it is now; None if it was deleted.
            now: The time of confirmation.
        """
        self.confirmed = now
        if self._listed is not None and not is_newer(version, self._listed):
            return
        if self._journal is not None:
            self._journal[name] = version, item
        if item is None:
            self._target.remove(self.collection, name)
        else:
            self._target.put(self.collection, item)

    def confirm(self, now: float) -> None:
        """Records that the state is current."""
        self.confirmed = now

    def unavailable(self, now: float) -> None:
        """Counts a collection that does not exist or may not be read as empty. What is known stays, unconfirmed."""
        self._journal = None
        if self._listed is None:
            self._target.replace({self.collection: ()})
            self.confirmed = now


def is_newer(version: str, than: str) -> bool:
    """Returns whether one resourceVersion is newer than another; true if that can't be told.

    Kubernetes documents them as comparable integers since 1.35 (KEP-5504); before, they were etcd's revisions.
    https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions
    """
    try:
        return int(version) > int(than)
    except ValueError:
        return True
