"""Reads one collection of the Kubernetes API: lists it at every poll, and watches it from the first list on.

Two loops, each for a thread of its own, so that a watch goes on while a list is read. A poll heals whatever a watch
missed: https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
What they find is posted to a ``Mirror``, which merges it. Whatever goes wrong, what was known stays known. This
module must not know what the objects mean.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import msgspec
import structlog

from xds_server import metrics
from xds_server.errors import ApiError, CredentialsError, ExpiredError, MalformedObjectError
from xds_server.kubernetes.api import Api
from xds_server.kubernetes.backoff import Backoff
from xds_server.kubernetes.limits import Limits
from xds_server.kubernetes.mirror import Mirror
from xds_server.kubernetes.outage import Outage
from xds_server.kubernetes.pace import WatchPace
from xds_server.objects import meta

log = structlog.get_logger()

PAGE_SIZE = 500
_FORBIDDEN = 403
_NOT_FOUND = 404
_GONE = 410
_UNWATCHED = 2
"""Refused watches of a collection, with a complete list in between, until it counts as one that can't be watched."""
_EVENTS = frozenset({"ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"})

Post = Callable[[Callable[[], None]], None]
"""Calls something in the event loop, in the order of the posts; returns at once."""


@dataclass(slots=True)
class _Attempt:
    """One watch: when its head came, and whether any event or bookmark followed."""

    opened: float = float("inf")
    delivered: bool = False


class Reflector:
    """The two loops of one collection, and what they share.

    Args:
        api: The API server.
        mirror: Names the collection, and takes what is found; it belongs to the event loop.
        post: Calls the mirror there.
        poll_interval: Seconds from one list to the next.
        limits: Deadlines and waits.
    """

    def __init__(
        self,
        api: Api,
        mirror: Mirror,
        post: Post,
        *,
        poll_interval: float,
        limits: Limits,
    ) -> None:
        self._api = api
        self._kind, namespace = mirror.collection
        self._path = self._kind.path(namespace)
        self._mirror = mirror
        self._post = post
        self._poll_interval = poll_interval
        self._limits = limits
        self._outage = Outage(self._path, limits.remind)
        self._available = True
        self._known = False
        self._unwatched = 0
        # Shared by the two loops, and changed under this lock alone.
        self._shared = threading.Condition()
        self._stopped = threading.Event()
        self._relist = False
        self._version: str | None = None

    def stop(self) -> None:
        """Ends both loops at their next turn."""
        with self._shared:
            self._stopped.set()
            self._shared.notify_all()

    # -- Lists ------------------------------------------------------------------------------------

    def run_lists(self) -> None:
        """Lists at every poll, and when the watch asks for it, until it is stopped."""
        backoff = Backoff(self._limits.first_backoff, self._limits.last_backoff)
        while not self._stopped.is_set():
            before = self._version
            try:
                version = self._list()
            except (ApiError, MalformedObjectError) as error:
                if self._stopped.is_set():
                    return
                if self._says_unavailable(error):
                    self._note_unavailable(str(error))
                    backoff.reset()
                    self._wait_for_poll()
                else:
                    self._post(self._mirror.list_failed)
                    self._list_failed(error)
                    self._sleep(self._pause(backoff, error))
                continue
            backoff.reset()
            with self._shared:
                # An event that came meanwhile may be newer than the list. Otherwise the list's version is the one to
                # resume from, even if it is older: then the server's state was restored from a backup.
                if self._version in (None, before):
                    self._version = version
                self._relist = False
                self._shared.notify_all()
            self._wait_for_poll()

    def _list(self) -> str:
        """Reads the whole collection, page by page; returns its version."""
        self._post(self._mirror.list_began)
        deadline = time.monotonic() + self._limits.list_total
        items: list[meta.Object] = []
        malformed: set[meta.Key] = set()
        query = {"limit": str(PAGE_SIZE)}
        while True:
            page = meta.decode(self._get_page(query, deadline), meta.Page)
            for raw in page.items or ():
                item = self._decode(raw, malformed)
                if item is not None:
                    items.append(item)
            if not page.metadata.continue_:
                break
            query["continue"] = page.metadata.continue_
        metrics.lists.labels(self._kind.name).inc()
        version = page.metadata.resource_version
        self._note_listed()
        self._post(partial(self._mirror.listed, version, items, malformed, time.monotonic()))
        return version

    def _note_listed(self) -> None:
        """Logs the end of an outage, before what was listed takes effect."""
        self._known = True
        self._outage.listed()
        self._outage.answered("list")
        if not self._available:
            self._available = True
            log.info("collection is available", path=self._path)

    def _get_page(self, query: dict[str, str], deadline: float) -> bytes:
        left = deadline - time.monotonic()
        if left <= 0:
            raise ApiError(f"the list was not complete after {self._limits.list_total:.0f} s")
        try:
            return self._api.get(self._path, query, within=left, accept=self._kind.accept[0])
        except ExpiredError as error:
            if "continue" in query:
                raise
            # Nothing in the first request of a list can be too old: the server is out of order.
            raise ApiError(str(error), status=error.status) from error

    def _list_failed(self, error: ApiError | MalformedObjectError) -> None:
        if isinstance(error, ExpiredError):
            self._count("expired")
            log.info("list took too long and its continue token expired; listing again", path=self._path)
        else:
            self._failed("list", error)

    def _says_unavailable(self, error: Exception) -> bool:
        """Whether the error means that there is no such collection for us, which is no outage if it is optional."""
        refused = isinstance(error, ApiError) and error.status in (_FORBIDDEN, _NOT_FOUND)
        return refused and not self._kind.required

    def _note_unavailable(self, reason: str) -> None:
        self._post(partial(self._mirror.unavailable, time.monotonic()))
        self._outage.listed()
        self._outage.answered("list")
        if not self._available:
            return
        self._available = False
        if self._known:
            log.warning(
                "collection can't be read any more; keeping its last known objects",
                path=self._path,
                reason=reason,
                hint=f"restore its definition, and grant get, list and watch on {self._kind.plural}",
            )
        else:
            log.info(
                "collection is not available; using it as soon as it is",
                path=self._path,
                reason=reason,
                hint=f"install its definition, and grant get, list and watch on {self._kind.plural}",
            )

    def _wait_for_poll(self) -> None:
        # Jitter, so that the replicas of a control plane do not poll in step.
        seconds = self._poll_interval * random.uniform(0.9, 1.0)  # noqa: S311 - spreads load, protects nothing
        with self._shared:
            self._shared.wait_for(lambda: self._relist or self._stopped.is_set(), seconds)
            self._relist = False

    # -- Watches ----------------------------------------------------------------------------------

    def run_watches(self) -> None:
        """Watches from the version of the first list on, until it is stopped."""
        pace = WatchPace(self._limits)
        while (version := self._wait_for_version()) is not None:
            attempt = _Attempt()
            error: ApiError | MalformedObjectError | None = None
            pace.begin(time.monotonic())
            try:
                self._watch(version, attempt)
            except (ApiError, MalformedObjectError) as caught:
                error = caught
            if self._stopped.is_set():
                return
            self._watch_ended(attempt, error, pace)

    def _watch_ended(
        self, attempt: _Attempt, error: ApiError | MalformedObjectError | None, pace: WatchPace
    ) -> None:
        """Takes note of how a watch ended, and waits until the next one, or the next list, is due."""
        now = time.monotonic()
        healthy = now - attempt.opened >= self._limits.watch_healthy
        worked = healthy or attempt.delivered
        if worked or error is None:
            self._watch_answered()
        if isinstance(error, ExpiredError):
            self._sleep(pace.expired(now))
            self._count("expired")
            log.info("version of the watch expired; listing again", path=self._path, reason=str(error))
            self._forget_version(relist=True)
        elif worked:
            if error is not None:
                self._count("cut")
                log.debug("watch was cut; watching again", path=self._path, reason=str(error))
            self._sleep(pace.worked(now, healthy=healthy))
        elif error is None:
            self._sleep(pace.failures.next())
        elif self._says_unavailable(error):
            self._note_unwatched(str(error))
        else:
            self._failed("watch", error)
            self._sleep(self._pause(pace.failures, error))

    def _watch(self, version: str, attempt: _Attempt) -> None:
        """Posts events until the watch ends; keeps the version to resume from."""
        limits = self._limits
        # Jitter, so that many watches that began together do not end together.
        asked = max(1, round(limits.watch_seconds * random.uniform(0.9, 1.0)))  # noqa: S311 - as above
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(asked),
        }
        accept = self._kind.accept[1]
        with self._api.watch(self._path, query, seconds=asked + limits.watch_grace, accept=accept) as lines:
            attempt.opened = time.monotonic()
            with self._answered_if_it_lasts():
                for line in lines:
                    self._apply(line)
                    if not attempt.delivered:
                        attempt.delivered = True
                        self._watch_answered()
                    if self._stopped.is_set():
                        return
        self._post(partial(self._mirror.confirm, time.monotonic()))

    def _apply(self, line: bytes) -> None:
        """Posts one event."""
        event = meta.decode(line, meta.WatchEvent)
        metrics.events.labels(self._kind.name, event.type if event.type in _EVENTS else "other").inc()
        if event.type == "ERROR":
            status = meta.decode(event.object, meta.Status)
            error = ExpiredError if status.code == _GONE else ApiError
            raise error(f"{status.code} {status.message}", status=status.code)
        version = meta.decode(event.object, meta.Versioned).metadata.resource_version
        now = time.monotonic()
        if event.type in ("ADDED", "MODIFIED") and (item := self._decode(event.object, set())) is not None:
            self._post(partial(self._mirror.changed, version, meta.key(item), item, now))
        elif event.type == "DELETED" and (key := meta.key_of(event.object)) is not None:
            self._post(partial(self._mirror.changed, version, key, None, now))
        else:
            self._post(partial(self._mirror.confirm, now))
        if version:
            with self._shared:
                self._version = version

    @contextmanager
    def _answered_if_it_lasts(self) -> Iterator[None]:
        """Ends an outage once the watch has lasted, even if it has nothing to deliver."""
        if not self._outage.includes("watch"):
            yield
            return
        timer = threading.Timer(self._limits.watch_healthy, self._outage.answered, ["watch"])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _watch_answered(self) -> None:
        """Takes note that watches work."""
        self._outage.answered("watch")
        if self._unwatched >= _UNWATCHED:
            log.info("collection is watched again", path=self._path)
        self._unwatched = 0

    def _note_unwatched(self, reason: str) -> None:
        """Watches again after a list. The first one is due at once: it tells whether lists are refused as well."""
        self._outage.answered("watch")
        self._unwatched += 1
        if self._unwatched == _UNWATCHED:
            log.warning(
                "collection can be listed but not watched; its changes are seen at polls only",
                path=self._path,
                reason=reason,
                hint=f"grant watch on {self._kind.plural}",
            )
        self._forget_version(relist=self._unwatched < _UNWATCHED)

    def _wait_for_version(self) -> str | None:
        """Waits for a version to watch from; None if it is stopped."""
        with self._shared:
            self._shared.wait_for(lambda: self._version is not None or self._stopped.is_set())
            return None if self._stopped.is_set() else self._version

    def _forget_version(self, *, relist: bool) -> None:
        """Watches no more before the next list, which is due at once or at the next poll."""
        with self._shared:
            self._version = None
            self._relist = self._relist or relist
            self._shared.notify_all()

    # -- Both -------------------------------------------------------------------------------------

    def _decode(self, raw: msgspec.Raw, malformed: set[meta.Key]) -> meta.Object | None:
        """Returns an object, or None if it is malformed: it alone is skipped, and what was known of it stays."""
        try:
            return meta.decode(raw, self._kind.type)
        except MalformedObjectError as error:
            key = meta.key_of(raw)
            if key is not None:
                malformed.add(key)
            metrics.malformed.labels(self._kind.name).inc()
            log.warning(
                "object is malformed; keeping its last valid version",
                kind=self._kind.name,
                object="/".join(key) if key else "without a name",
                reason=str(error),
            )
            return None

    def _failed(self, request: str, error: ApiError | MalformedObjectError) -> None:
        status = error.status if isinstance(error, ApiError) else 0
        self._count(str(status) if status else "unreachable" if isinstance(error, ApiError) else "malformed")
        hint = None
        if isinstance(error, CredentialsError):
            hint = "replace the token, in the kubeconfig or the service account: one line of printable ASCII"
        elif status == 401:  # noqa: PLR2004 - Unauthorized
            hint = "renew the credentials, or check the service account's token: they are not accepted"
        elif status == _FORBIDDEN:
            hint = f"grant get, list and watch on {self._kind.plural}, as k8s/base/xds-server does"
        self._outage.failed(request, str(error), hint)

    def _pause(self, backoff: Backoff, error: ApiError | MalformedObjectError) -> float:
        asked = error.retry_after if isinstance(error, ApiError) else 0
        return backoff.next(at_least=min(asked, self._limits.retry_after))

    def _count(self, reason: str) -> None:
        metrics.failures.labels(self._kind.name, reason).inc()

    def _sleep(self, seconds: float) -> None:
        with self._shared:
            self._shared.wait_for(self._stopped.is_set, max(0, seconds))
