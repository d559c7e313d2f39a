"""What every source of Kubernetes objects can do, and what it feeds."""

from collections.abc import Iterable, Mapping
from typing import Protocol

from xds_server.objects.kinds import Collection
from xds_server.objects.meta import Key, Object


class Source(Protocol):
    """A cluster's API, or a folder of files: keeps a target up to date for as long as the program runs."""

    async def run(self) -> None:
        """Runs until it is cancelled. Raises ServiceError if it can never work as it is configured."""

    def age(self) -> float:
        """Seconds since the source last confirmed the whole state; infinite before the first time."""


class Target(Protocol):
    """Where objects go: ``mesh.store.Store``."""

    def get(self, collection: Collection, key: Key) -> Object | None:
        """Returns an object as it was last known."""

    def replace(self, lists: Mapping[Collection, Iterable[Object]]) -> None:
        """Applies complete lists as one change."""

    def put(self, collection: Collection, item: Object) -> None:
        """Applies one object that was added or modified."""

    def remove(self, collection: Collection, key: Key) -> None:
        """Applies the deletion of one object."""
