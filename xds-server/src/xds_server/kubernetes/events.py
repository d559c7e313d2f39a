"""Writes core/v1 Events: what users see in `kubectl describe` and `kubectl get events`.

What is repeated is one Event with a count. Everything is bounded, as clients can cause Events: how many there are at once, how
often one is written, and how many are new in a while; what is new beyond that waits. An Event that can't be written is
dropped: the log and the page say the same.

https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/
"""

import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from typing import NamedTuple

import structlog

from servicekit.log_limits import LogLimiter
from xds_server import metrics
from xds_server.errors import ApiError, ConflictError
from xds_server.kubernetes.api import Api

log = structlog.get_logger()

COMPONENT = "xds-server"
MAX_MESSAGE_LENGTH = 1_024
"""https://github.com/kubernetes/kubernetes/blob/master/pkg/apis/core/validation/events.go"""
_LOOK = 1.0
"""Seconds between two looks at what waits."""
_MAX_NAME_LENGTH = 220
"""Of the object, in the name of its Event, which may have 253 characters."""


class ObjectRef(NamedTuple):
    """The object that an Event is about. Without its uid, `kubectl describe` does not show the Event."""

    kind: str
    api_version: str
    namespace: str
    name: str
    uid: str = ""


@dataclass(frozen=True, slots=True)
class EventLimits:
    """Bounds.

    Attributes:
        burst: New Events of one reason at once, so that clients that reject something delay no problems of objects.
        per_second: New Events of one reason in the long run.
        of_object: The same bounds for one object.
        of_object_per_second: Likewise.
        known: Events that are remembered, at most.
        waiting: Events of one reason that wait until there may be a new one, at most; more are dropped.
        waiting_of_object: Likewise, of one object.
        gap: Seconds between two writes.
        longest_pause: Seconds for which the API may ask not to be called, at most.
        repeat: Seconds between two writes of one Event.
        forget: Seconds without a repetition after which an Event is forgotten.
    """

    burst: int = 25
    per_second: float = 0.2
    of_object: int = 5
    of_object_per_second: float = 1 / 60
    known: int = 500
    waiting: int = 500
    waiting_of_object: int = 20
    gap: float = 0.05
    longest_pause: float = 60.0
    repeat: float = 60.0
    forget: float = 600.0


class _Place(NamedTuple):
    """What is one Event, however often it is reported."""

    regarding: ObjectRef
    reason: str
    message: str


@dataclass(slots=True)
class _Known:
    """What is known of one Event.

    Attributes:
        first: When it was reported first; text, RFC 3339.
        last: When it was reported last; likewise.
        count: How often.
        written: How often when it was written last.
        due: When it may be written, as of ``time.monotonic``.
        seen: When it was reported last, likewise.
    """

    first: str
    last: str
    count: int = 1
    written: int = 0
    due: float = float("-inf")
    seen: float = field(default_factory=time.monotonic)


class EventWriter:
    """Takes reports from any thread, and writes them in one of its own.

    Args:
        api: The API server.
        limits: Bounds.
    """

    def __init__(self, api: Api, limits: EventLimits = EventLimits()) -> None:
        self._api = api
        self._limits = limits
        self._known: dict[_Place, _Known] = {}
        self._waiting: dict[_Place, _Known] = {}
        self._changed = threading.Condition()
        self._stopped = False
        self._new = LogLimiter(burst=limits.burst, per_second=limits.per_second)
        self._of_object = LogLimiter(burst=limits.of_object, per_second=limits.of_object_per_second)
        self._failing = False

    def report(self, regarding: ObjectRef, reason: str, message: str) -> None:
        """Reports something about an object. Never blocks on I/O.

        Args:
            regarding: The object.
            reason: A word in UpperCamelCase.
            message: For people.
        """
        place = _Place(regarding, reason, message[:MAX_MESSAGE_LENGTH])
        now = _now()
        with self._changed:
            known = self._known.get(place) or self._waiting.get(place)
            if known is not None:
                known.count += 1
                known.last, known.seen = now, time.monotonic()
            elif self._may_wait(place):
                self._waiting[place] = _Known(first=now, last=now)
            else:
                metrics.kubernetes_events.labels("dropped").inc()
                return
            self._changed.notify()

    def _may_wait(self, place: _Place) -> bool:
        """Whether there is room for one more. Neither one object nor one reason, which clients may cause, takes all."""
        limits = self._limits
        of_reason = [each for each in self._waiting if each.reason == place.reason]
        of_object = sum(each.regarding == place.regarding for each in of_reason)
        return len(of_reason) < limits.waiting and of_object < limits.waiting_of_object

    def stop(self) -> None:
        """Ends ``run`` at its next turn."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def run(self) -> None:
        """Writes what is due, until it is stopped. For a thread of its own."""
        while (taken := self._next()) is not None:
            place, known = taken
            try:
                self._write(place, known)
            except ApiError as error:
                self._failed(place, error)
            else:
                self._failing = False
                metrics.kubernetes_events.labels("written").inc()
                self._sleep(self._limits.gap)

    def _admit(self) -> None:
        """Turns what waits into new Events, as far as there may be any."""
        self._forget()
        for place in list(self._waiting):
            if len(self._known) >= self._limits.known:
                return
            regarding = place.regarding
            name = f"{place.reason} {regarding.kind} {regarding.namespace}/{regarding.name}"
            if self._of_object.allow(name) is not None and self._new.allow(place.reason) is not None:
                self._known[place] = self._waiting.pop(place)

    def _forget(self) -> None:
        limit = time.monotonic() - self._limits.forget
        for place in [p for p, known in self._known.items() if known.seen < limit and known.written]:
            del self._known[place]

    def _next(self) -> tuple[_Place, _Known] | None:
        """Waits for an Event that is due; returns it as it is now, or None if the writer is stopped."""
        with self._changed:
            while not self._stopped:
                self._admit()
                waiting = [item for item in self._known.items() if item[1].count > item[1].written]
                first = min(waiting, key=lambda item: item[1].due, default=None)
                wait = None if first is None else first[1].due - time.monotonic()
                if first is not None and wait is not None and wait <= 0:
                    place, known = first
                    taken = _Known(known.first, known.last, known.count, known.written)
                    known.written, known.due = known.count, time.monotonic() + self._limits.repeat
                    return place, taken
                if self._waiting:
                    wait = min(wait or _LOOK, _LOOK)
                self._changed.wait(wait)
            return None

    def _sleep(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped, seconds)

    def _write(self, place: _Place, known: _Known) -> None:
        """Creates an Event, or updates its count.

        Raises:
            ApiError: It could not be written.
        """
        path = f"/api/v1/namespaces/{place.regarding.namespace}/events"
        name = _name(place)
        if not known.written:
            try:
                self._api.post(path, _event(name, place, known))
            except ConflictError:
                pass  # another replica, or this program before it was restarted, has written it
            else:
                return
        # Another replica may have counted meanwhile.
        count = json.loads(self._api.get(f"{path}/{name}", {})).get("count") or 0
        repeated = {"count": count + known.count - known.written, "lastTimestamp": known.last}
        self._api.patch(f"{path}/{name}", repeated)

    def _failed(self, place: _Place, error: ApiError) -> None:
        """Drops an Event; logs the first failure after a success."""
        metrics.kubernetes_events.labels("failed").inc()
        with self._changed:
            self._known.pop(place, None)
        if not self._failing:
            self._failing = True
            log.warning(
                "Event can't be written and is dropped",
                object=f"{place.regarding.kind} {place.regarding.namespace}/{place.regarding.name}",
                about=place.reason,
                reason=str(error),
                hint="grant get, create and patch on events, as k8s/base/xds-server does"
                if error.status == 403  # noqa: PLR2004 - Forbidden
                else None,
            )
        if error.retry_after:
            self._sleep(min(error.retry_after, self._limits.longest_pause))


def _event(name: str, place: _Place, known: _Known) -> dict[str, object]:
    regarding = place.regarding
    involved = {
        "kind": regarding.kind,
        "apiVersion": regarding.api_version,
        "namespace": regarding.namespace,
        "name": regarding.name,
        **({"uid": regarding.uid} if regarding.uid else {}),
    }
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": regarding.namespace},
        "involvedObject": involved,
        "type": "Warning",
        "reason": place.reason,
        "message": place.message,
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "firstTimestamp": known.first,
        "lastTimestamp": known.last,
        "count": known.count,
    }


def _name(place: _Place) -> str:
    """A name that is the same on every replica, so that two do not write one Event twice."""
    digest = hashlib.sha256("\n".join(map(str, place)).encode()).hexdigest()[:16]
    return f"{place.regarding.name[:_MAX_NAME_LENGTH]}.{digest}"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
