"""Keeps one collection of the Kubernetes API mirrored: LIST, then WATCH from there, and so on for ever.

A poll is a relist inside this loop, so an old list can never undo a newer event, and a poll heals whatever a
watch missed: https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
Whatever goes wrong, what was known stays known. This module must not know what the objects mean.
"""

import random
import threading
import time
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
import structlog

from xds_server import metrics
from xds_server.discovery import objects
from xds_server.discovery.api import Api
from xds_server.discovery.backoff import Backoff
from xds_server.errors import ApiError, ExpiredError, MalformedObjectError

log = structlog.get_logger()

PAGE_SIZE = 500
WATCH_SECONDS = 270
"""The longest that one watch is asked for; the API server's own limit is 5 to 10 minutes."""
WATCH_GRACE = 10.0
"""Seconds past its agreed end after which a silent watch is dead."""
SILENCE = 75.0
"""Seconds of silence that end a watch: bookmarks come every minute."""
HEALTHY_SECONDS = 1.0
"""A watch that ends sooner than this has failed, however politely."""
MAX_RETRY_AFTER = 60.0
"""The longest that a server may ask to be left alone, in seconds."""
REMIND_SECONDS = 60.0
"""How often a continuing outage is logged."""
_MENDS = {
    401: "the credentials are not accepted: renew them, or check the service account's token",
    403: "grant get, list and watch on services and endpointslices, as k8s/base/xds-server does",
}


class Sink(Protocol):
    """Takes what the reflector finds; called from the reflector's thread."""

    def listed(self, items: list[objects.Object], malformed: set[objects.Key]) -> None:
        """Everything there is, and the keys of those that could not be decoded."""

    def put(self, item: objects.Object) -> None:
        """One object that was added or modified."""

    def removed(self, key: objects.Key) -> None:
        """One object that was deleted."""

    def confirmed(self) -> None:
        """The source is alive and what is known is what there is."""


@dataclass
class Reflector:
    """A loop for a thread of its own.

    Attributes:
        api: The API server.
        path: Of the collection, such as ``/api/v1/services``.
        kind: What its items decode to.
        sink: Where they go.
        poll_interval: Seconds from one list to the next.
        watch: Whether to watch in between.
        stop: Ends the loop at its next turn.
    """

    api: Api
    path: str
    kind: type[objects.Service | objects.EndpointSlice]
    sink: Sink
    poll_interval: float
    watch: bool
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._backoff = Backoff()
        self._failing_since: float | None = None
        self._reminded = 0.0

    def run(self) -> None:
        """Lists and watches until it is told to stop."""
        while not self.stop.is_set():
            try:
                version = self._list()
                self._answered()
                if not self.watch:
                    self._backoff.reset()
                self._until_next_poll(version)
            except ExpiredError as error:
                # Normal after a long silence; a server that says it in a loop is asked ever more seldom.
                self._count("expired")
                log.info("list again: the version is too old", path=self.path, reason=str(error))
                self.stop.wait(self._backoff.next())
            except (ApiError, MalformedObjectError) as error:
                self._failed(error)

    def _until_next_poll(self, version: str) -> None:
        """Watches, or waits, until it is time to list again."""
        # Jitter, so that the replicas of a control plane do not poll in step.
        due = time.monotonic() + self.poll_interval * random.uniform(0.9, 1.0)  # noqa: S311
        while not self.stop.is_set() and (left := due - time.monotonic()) > 0:
            if not self.watch:
                self.stop.wait(left)
                continue
            began = time.monotonic()
            try:
                version = self._watch(version, max(1, min(WATCH_SECONDS, round(left))))
            except ExpiredError:
                raise
            except ApiError as error:
                self._failed(error)
                continue
            self._answered()
            if time.monotonic() - began < HEALTHY_SECONDS:
                self.stop.wait(self._backoff.next())
            else:
                self._backoff.reset()

    def _list(self) -> str:
        """Reads the whole collection, page by page; returns the version to watch from."""
        items: list[objects.Object] = []
        malformed: set[objects.Key] = set()
        query = {"limit": str(PAGE_SIZE)}
        while True:
            try:
                body = self.api.get(self.path, query)
            except ExpiredError as error:
                if "continue" in query:
                    raise
                # Nothing that is asked for here can be too old: the server is out of order.
                raise ApiError(str(error), status=error.status) from error
            page = objects.decode(body, objects.Page)
            for raw in page.items or ():
                item = self._decode(raw, malformed)
                if item is not None:
                    items.append(item)
            if not page.metadata.continue_:
                break
            query["continue"] = page.metadata.continue_
        metrics.lists.labels(self.kind.__name__).inc()
        self.sink.listed(items, malformed)
        return page.metadata.resource_version

    def _watch(self, version: str, seconds: int) -> str:
        """Applies events until the server ends the watch; returns the version to go on from."""
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
        }
        for line in self.api.lines(self.path, query, silence=min(SILENCE, seconds + WATCH_GRACE)):
            event = objects.decode(line, objects.WatchEvent)
            metrics.events.labels(self.kind.__name__, event.type if event.type in _EVENTS else "other").inc()
            if event.type == "ERROR":
                status = objects.decode(event.object, objects.Status)
                error = ExpiredError if status.code == 410 else ApiError  # noqa: PLR2004 - Gone
                raise error(f"{status.code} {status.message}", status=status.code)
            if event.type in ("ADDED", "MODIFIED"):
                item = self._decode(event.object, set())
                if item is not None:
                    self.sink.put(item)
            elif event.type == "DELETED":
                key = objects.key_of(event.object)
                if key is not None:
                    self.sink.removed(key)
            self.sink.confirmed()
            version = objects.decode(event.object, objects.Bookmark).metadata.resource_version or version
            if self.stop.is_set():
                break
        self.sink.confirmed()
        return version

    def _decode(self, raw: msgspec.Raw, malformed: set[objects.Key]) -> objects.Object | None:
        """An object, or None if it is malformed: then it alone is left out, and what was known of it stays."""
        try:
            return objects.decode(raw, self.kind)
        except MalformedObjectError as error:
            key = objects.key_of(raw)
            if key is not None:
                malformed.add(key)
            metrics.malformed.labels(self.kind.__name__).inc()
            where = "/".join(key) if key else "without a name"
            log.warning("object is malformed", kind=self.kind.__name__, object=where, reason=str(error))
            return None

    def _failed(self, error: ApiError | MalformedObjectError) -> None:
        """Logs the start of an outage, and a reminder now and then; waits."""
        now = time.monotonic()
        status = error.status if isinstance(error, ApiError) else 0
        self._count(str(status) if status else "unreachable" if isinstance(error, ApiError) else "malformed")
        if self._failing_since is None:
            self._failing_since, self._reminded = now, now
            log.warning(
                "the Kubernetes API does not answer as it should; what is known stays served",
                path=self.path,
                reason=str(error),
                **({"mend": _MENDS[status]} if status in _MENDS else {}),
            )
        elif now - self._reminded >= REMIND_SECONDS:
            self._reminded = now
            seconds = round(now - self._failing_since)
            log.warning("the Kubernetes API still fails", path=self.path, reason=str(error), seconds=seconds)
        retry_after = error.retry_after if isinstance(error, ApiError) else 0
        self.stop.wait(self._backoff.next(at_least=min(retry_after, MAX_RETRY_AFTER)))

    def _answered(self) -> None:
        """Logs the end of an outage."""
        if self._failing_since is not None:
            seconds = round(time.monotonic() - self._failing_since)
            log.info("the Kubernetes API answers again", path=self.path, seconds=seconds)
            self._failing_since = None

    def _count(self, reason: str) -> None:
        metrics.failures.labels(self.kind.__name__, reason).inc()


_EVENTS = frozenset({"ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"})
