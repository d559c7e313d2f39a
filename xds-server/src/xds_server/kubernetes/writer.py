"""Writes the statuses of objects: one thread, the newest wish for each object, and no request at rest.

Replicas need no leader. Each works out the same status, waits a short random time, and writes it only if the object does
not say so by then. A write carries the resourceVersion that was read, so it can't undo another's.
"""

import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import structlog

from xds_server import metrics
from xds_server.errors import ApiError, ConflictError, MalformedObjectError
from xds_server.kubernetes.api import Api
from xds_server.kubernetes.backoff import Backoff
from xds_server.mesh.statuses import ANCESTORS, PARENTS, Status, StatusFields, is_outdated, merge
from xds_server.objects import meta
from xds_server.objects.kinds import GRPC_BACKEND_POLICY, GRPC_ROUTE, Kind

log = structlog.get_logger()

FIELDS: Mapping[Kind, StatusFields] = {GRPC_ROUTE: PARENTS, GRPC_BACKEND_POLICY: ANCESTORS}

_FORBIDDEN = 403
_NOT_FOUND = 404
_TOO_MANY_REQUESTS = 429

_Place = tuple[Kind, meta.Key]
"""One object."""


@dataclass(frozen=True, slots=True)
class WriterLimits:
    """How long the writer waits, in seconds.

    Attributes:
        first: At least and at most, before the status of a new generation is written.
        again: The same before another change is written. What one replica has seen of other objects, another may still
            have to see: it must not write back an older truth.
        gap: Between two writes.
        conflicts: How often a write is tried again at once because the object has changed meanwhile.
        first_backoff: The longest wait after a first failure.
        last_backoff: The longest wait after many.
        remind: Between two log lines about failures.
        window: In which the writes of one object are counted: each doubles the wait before the next one, so that two
            servers that disagree do not write for ever at full speed.
    """

    first: tuple[float, float] = (0.1, 0.3)
    again: tuple[float, float] = (1.0, 2.0)
    gap: float = 0.05
    conflicts: int = 5
    first_backoff: float = 2.0
    last_backoff: float = 30.0
    remind: float = 60.0
    window: float = 60.0


CONTESTED = 5
"""Writes of one object within the window from which something else seems to write it, too."""


@dataclass(frozen=True, slots=True)
class _Wish:
    """What one object's status has to say.

    Attributes:
        kind: Of the object.
        item: The object as it was read last.
        status: What is wanted.
        due: When it may be written, as of ``time.monotonic``.
    """

    kind: Kind
    item: meta.Tracked
    status: Status
    due: float


class StatusWriter:
    """Keeps what is wanted until it is written.

    Args:
        api: The API server.
        limits: Waits.
    """

    def __init__(self, api: Api, limits: WriterLimits = WriterLimits()) -> None:
        self._api = api
        self._limits = limits
        self._wishes: dict[_Place, _Wish] = {}
        self._changed = threading.Condition()
        self._stopped = False
        self._taken: _Wish | None = None
        self._backoffs: dict[_Place, Backoff] = {}
        self._writes: dict[_Place, list[float]] = {}
        self._contested: set[_Place] = set()
        self._outage = Backoff(limits.first_backoff, limits.last_backoff)
        self._reminded = float("-inf")

    def want(self, kind: Kind, item: meta.Tracked, status: Status) -> None:
        """Has a status written unless the object has it already. Never blocks on I/O; from any thread."""
        place = kind, meta.key(item)
        fields = FIELDS[kind]
        with self._changed:
            self._supersede(place)
            if merge(item.status, status, fields, now="") is None:
                self._wishes.pop(place, None)
                return
            known = self._wishes.get(place)
            if known is None or known.status.generation != status.generation:
                is_first = is_outdated(item.status, status, fields)
                wait = random.uniform(*self._limits.first if is_first else self._limits.again)  # noqa: S311 - spreads load, protects nothing
                due = time.monotonic() + wait * (1 if is_first else 2 ** self._recent_writes(place))
            else:
                due = known.due
            self._wishes[place] = _Wish(kind, item, status, due)
            self._changed.notify()

    def forget(self, kind: Kind, key: meta.Key) -> None:
        """Drops what is wanted for an object that is gone."""
        with self._changed:
            self._supersede((kind, key))
            self._wishes.pop((kind, key), None)
            self._writes.pop((kind, key), None)
            self._contested.discard((kind, key))
            self._backoffs.pop((kind, key), None)

    def stop(self) -> None:
        """Ends ``run`` at its next turn."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def run(self) -> None:
        """Writes what is due, until it is stopped. For a thread of its own."""
        while (wish := self._next()) is not None:
            try:
                self._write(wish)
            except (ApiError, MalformedObjectError) as error:
                self._failed(wish, error)
            else:
                self._outage.reset()
                self._backoffs.pop((wish.kind, meta.key(wish.item)), None)
            self._sleep(self._limits.gap)

    def _next(self) -> _Wish | None:
        """Waits for a wish that is due, and takes it; None if the writer is stopped."""
        with self._changed:
            while not self._stopped:
                first = min(self._wishes.values(), key=lambda wish: wish.due, default=None)
                wait = None if first is None else first.due - time.monotonic()
                if first is not None and wait is not None and wait <= 0:
                    del self._wishes[first.kind, meta.key(first.item)]
                    self._taken = first
                    return first
                self._changed.wait(wait)
            return None

    def _write(self, wish: _Wish) -> None:
        """Writes one status.

        Raises:
            ApiError: It could not be written.
            MalformedObjectError: The object can't be read any more.
        """
        namespace, name = meta.key(wish.item)
        path = f"{wish.kind.path(namespace)}/{name}"
        fields, item = FIELDS[wish.kind], wish.item
        for _ in range(self._limits.conflicts):
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            entries = merge(item.status, wish.status, fields, now)
            # A newer generation has a wish of its own.
            if entries is None or item.metadata.generation > wish.status.generation:
                return
            version = item.metadata.resource_version
            body = {"metadata": {"resourceVersion": version}, "status": {fields.entries: entries}}
            try:
                try:
                    self._api.patch(f"{path}/status", body)
                except ConflictError:
                    self._count(wish.kind, "conflict")
                    item = cast("meta.Tracked", meta.decode(self._api.get(path, {}), wish.kind.type))
                    continue
            except ApiError as error:
                if error.status == _NOT_FOUND:
                    return
                raise
            self._count(wish.kind, "written")
            self._writes.setdefault((wish.kind, (namespace, name)), []).append(time.monotonic())
            self._warn_if_contested(wish)
            return
        raise ApiError("the object keeps changing")

    def _warn_if_contested(self, wish: _Wish) -> None:
        """Logs once that something else writes other statuses to the same object."""
        place = wish.kind, meta.key(wish.item)
        if len(self._writes[place]) < CONTESTED or place in self._contested:
            return
        self._contested.add(place)
        log.warning(
            "something else writes our part of a status with other content; it is written less and less often",
            kind=wish.kind.name,
            object="/".join(meta.key(wish.item)),
            hint="run one version of xds-server with the same settings in all replicas",
        )

    def _failed(self, wish: _Wish, error: ApiError | MalformedObjectError) -> None:
        """Keeps the wish for later, unless it has been superseded; logs now and then."""
        self._count(wish.kind, "failed")
        now = time.monotonic()
        place = wish.kind, meta.key(wish.item)
        status = error.status if isinstance(error, ApiError) else 0
        asked = min(error.retry_after, self._limits.last_backoff) if isinstance(error, ApiError) else 0
        with self._changed:
            limits = self._limits
            backoff = self._backoffs.setdefault(place, Backoff(limits.first_backoff, limits.last_backoff))
            due = now + backoff.next(at_least=asked)
            if self._taken is wish:
                self._wishes[place] = _Wish(wish.kind, wish.item, wish.status, due)
        if now - self._reminded >= self._limits.remind:
            self._reminded = now
            forbidden = isinstance(error, ApiError) and error.status == _FORBIDDEN
            log.warning(
                "status can't be written; trying again",
                kind=wish.kind.name,
                object="/".join(meta.key(wish.item)),
                reason=str(error),
                hint=f"grant patch on {wish.kind.plural}/status, as k8s/base/xds-server does"
                if forbidden
                else None,
            )
        if not 400 <= status < 500 or status == _TOO_MANY_REQUESTS:  # noqa: PLR2004 - the object is not at fault
            # While the API does not answer, other writes would fail as well.
            self._sleep(self._outage.next(at_least=asked))

    def _supersede(self, place: _Place) -> None:
        """Notes that the wish that is being written is not the newest any more."""
        if self._taken is not None and (self._taken.kind, meta.key(self._taken.item)) == place:
            self._taken = None

    def _recent_writes(self, place: _Place) -> int:
        """How often an object was written of late, at most 6."""
        since = time.monotonic() - self._limits.window
        recent = [at for at in self._writes.get(place, ()) if at >= since]
        if recent:
            self._writes[place] = recent[-6:]
        else:
            self._writes.pop(place, None)
        return min(len(recent), 6)

    def _sleep(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped, seconds)

    @staticmethod
    def _count(kind: Kind, result: str) -> None:
        metrics.status_writes.labels(kind.name, result).inc()
