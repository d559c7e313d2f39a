"""One ADS stream: its session, its call, and when responses may be written.

grpc's threads deliver requests, the event loop delivers changes. Both take the cache's lock before they use the session.
"""

import asyncio
import functools
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import grpc
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError
from prometheus_client import Counter

from xds_server import metrics
from xds_server.ads.limits import Allowance
from xds_server.ads.session import Outcome, RequestKind, Response, Session
from xds_server.cache.cache import Cache
from xds_server.client_log import ClientLog, ip
from xds_server.errors import ExhaustedError, ForbiddenError, InvalidRequestError, RequestError
from xds_server.model.client import Client
from xds_server.model.identity import Identity
from xds_server.resources.types import ResourceType
from xds_server.rpc.call import Call

MAX_NAMES_LOGGED = 5


@dataclass(frozen=True, slots=True)
class Pace:
    """When responses are written, in seconds.

    Attributes:
        gather: How long changes are gathered after a response: no stream is sent changes more often than that.
        write_timeout: How long a client may leave a response unread before its stream is closed.
        first_request_timeout: How long a client may take for its first request.
        introduce: How often to check whether a client has set up the clusters that are new to a route, before the route
            sends anything to them. https://github.com/grpc/grpc-go loses calls otherwise ("unknown cluster selected
            for RPC").
    """

    gather: float = 0.1
    write_timeout: float = 30.0
    first_request_timeout: float = 30.0
    introduce: float = 0.025


class Rejected(NamedTuple):
    """A response that a client rejected.

    Attributes:
        client: As it is known.
        user_agent: Name and version of its gRPC library.
        type: Of the resources.
        names: Of the resources in the response.
        message: In the client's own words.
    """

    client: Client
    user_agent: str
    type: ResourceType
    names: Sequence[str]
    message: str


@dataclass(frozen=True, slots=True)
class Context:
    """What all streams of a server have in common.

    Attributes:
        cache: Where sessions find resources.
        pace: When responses are written.
        loop: The event loop that publishes changes.
        probe_node: The node id of this server's own probe, whose streams are not logged.
        rejected: Called in the loop for every response that a client rejects.
    """

    cache: Cache
    pace: Pace
    loop: asyncio.AbstractEventLoop
    probe_node: str | None
    rejected: Callable[[Rejected], None]


class Stream:
    """One stream.

    Args:
        number: Identifies the stream for people.
        call: The call that carries it.
        context: What it has in common with others.
        allowance: Bounds what the stream may hold.
        log: For lines that the client causes.
        closed: Called with the number at the end.
        identity: Who the client is, if its certificate says so.

    Attributes:
        writing_since: When the response that is being written was passed to grpc; infinite if none is.
        is_probe: Whether it belongs to this server's own probe, which is neither logged nor counted.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - each is one thing
        self,
        number: int,
        call: Call,
        context: Context,
        allowance: Allowance,
        log: ClientLog,
        closed: Callable[[int], None],
        identity: Identity | None = None,
    ) -> None:
        self.number = number
        self.call = call
        self.session = Session(context.cache, allowance, self._flush, identity, ip(call.peer))
        self.writing_since = float("inf")
        self.is_probe = False
        self._opened = time.monotonic()
        self._log = log.bind(stream=number)
        self._debugging = self._log.debugging
        self._cache = context.cache
        self._context = context
        self._closed = closed
        self._is_known = False
        self._is_due = False
        self._round: Iterator[Response] = iter(())
        self._quiet_until = 0.0
        self._is_waiting = False
        self._is_introducing = False

    # ---- from the call ----

    def received(self, message: bytes) -> None:
        """Applies a request, and writes what it asks for without delay."""
        try:
            request = _decode(message)
        except RequestError as error:
            self._refuse(error)
            return
        with self._cache.lock:
            try:
                outcome = self.session.request(request)
            except RequestError as error:
                self.is_probe = self.session.node.id == self._context.probe_node
                self._refuse(error)
                return
            self._introduce()
            self._note(outcome, request)
            self._is_due |= outcome.is_due
            self._write()

    def finished(self) -> None:
        """Ends the stream, as the client does."""
        with self._cache.lock:
            self.call.end(grpc.StatusCode.OK, "")

    def written(self) -> None:
        """Writes the next response, if there is one."""
        with self._cache.lock:
            self.writing_since = float("inf")
            self._write()

    def ended(self) -> None:
        """Gives up everything that the stream holds."""
        with self._cache.lock:
            self._closed(self.number)
            self.session.close()
            self._round = iter(())
        if not self.is_probe:
            self._log.info("stream closed", node=self.session.node.id)

    # ---- from the servicer ----

    def close_if_stuck(self, now: float) -> None:
        """Closes the stream if its client stopped reading, or never sent a complete request."""
        pace = self._context.pace
        node = self.session.node.id
        if now - self.writing_since > pace.write_timeout:
            metrics.write_timeouts.inc()
            self._log.warning(
                "client stopped reading; its stream is closed", node=node, seconds=pace.write_timeout
            )
            self.writing_since = float("inf")
            # A status would be queued behind the response that is left unread.
            self.call.cancel()
        elif (
            not self._is_known and not self.call.is_ending and now - self._opened > pace.first_request_timeout
        ):
            self._log.warning(
                "client sent no request; its stream is closed", seconds=pace.first_request_timeout
            )
            self.call.end(grpc.StatusCode.DEADLINE_EXCEEDED, "no request was received in time")

    # ---- from the session: changes ----

    def _flush(self) -> None:
        """Writes the first change after a quiet moment at once, and gathers those that follow closely."""
        if self._is_waiting:
            return
        wait = self._quiet_until - time.monotonic()
        if wait <= 0:
            self._is_due = True
            self.call.guard(self._write)
        else:
            self._is_waiting = True
            self._context.loop.call_later(wait, self._flush_gathered)

    def _flush_gathered(self) -> None:
        with self._cache.lock:
            self._is_waiting = False
            self._flush()

    def _check_introductions(self) -> None:
        """Lets the session check introductions, again and again while there are any."""
        with self._cache.lock:
            if self.writing_since == float("inf"):
                self._is_introducing = self.session.check_introductions()
            if self._is_introducing and not self.call.is_ending:
                self._context.loop.call_later(self._context.pace.introduce, self._check_introductions)

    def _write(self) -> None:
        """Writes the next response, unless one is being written: then ``written`` comes here again."""
        if self.writing_since != float("inf") or self.call.is_ending:
            return
        response = next(self._round, None)
        if response is None and self._is_due:
            # Changes that come while the responses of this round are written may have to wait for the next round.
            self._is_due = False
            self._round = self.session.round()
            response = next(self._round, None)
        if response is None:
            return
        self.writing_since = time.monotonic()
        self._quiet_until = self.writing_since + self._context.pace.gather
        if response.introduces and not self._is_introducing:
            self._is_introducing = True
            loop = self._context.loop
            loop.call_soon_threadsafe(
                loop.call_later, self._context.pace.introduce, self._check_introductions
            )
        if not self.is_probe:
            _responses(response.type).inc()
        if self._debugging:
            self._log.debug(
                "response",
                type=response.type.label,
                version=response.version,
                nonce=response.nonce,
                names=_some(response.names),
            )
        self.call.write(response.body)

    # ---- log ----

    def _introduce(self) -> None:
        """Logs who opened the stream, once."""
        if self._is_known:
            return
        self._is_known = True
        node = self.session.node
        self.is_probe = node.id == self._context.probe_node
        if not self.is_probe:
            self._log.info("stream opened", node=node.id, client=node.user_agent)

    def _refuse(self, error: RequestError) -> None:
        """Ends the stream because of a request."""
        if not self.is_probe:
            node, reason = self.session.node.id, str(error)
            self._log.warning("request refused; the stream is closed", node=node, reason=reason)
        self.call.end(status_of(error), str(error))

    def _note(self, outcome: Outcome, request: Any) -> None:
        """Counts a request, and logs it if people should know about it."""
        if not self.is_probe:
            _requests(outcome.type, outcome.kind).inc()
        if outcome.kind is RequestKind.ACK and not outcome.missing and not self._debugging:
            return
        label = outcome.type.label if outcome.type else "other"
        if self._debugging:
            self._log.debug(
                "request",
                type=label,
                kind=outcome.kind.value,
                version=request.version_info[:200],
                nonce=request.response_nonce[:200],
                names=_some(request.resource_names),
            )
        if outcome.rejection is not None:
            metrics.rejections.labels(label).inc()
            self._pass_on(outcome)
            self._log.warning(
                "client rejected a response (NACK); it keeps the last good version of what it rejected",
                node=self.session.node.id,
                type=label,
                names=_some(outcome.rejection.names),
                version=outcome.rejection.version,
                reason=outcome.rejection.message,
            )
        elif outcome.kind is RequestKind.UNKNOWN_TYPE:
            self._log.info(
                "client subscribed to a type that is not served",
                node=self.session.node.id,
                type_url=request.type_url[:200],
            )
        if outcome.missing:
            self._log.info(
                "client subscribed to names that do not exist; it is answered when they appear",
                node=self.session.node.id,
                namespace=self.session.client.namespace,
                type=label,
                names=_some(outcome.missing),
            )

    def _pass_on(self, outcome: Outcome) -> None:
        """Passes a rejection on to whoever tells the user."""
        node, client = self.session.node, self.session.client
        if outcome.rejection is not None and outcome.type is not None:
            names, message = outcome.rejection.names, outcome.rejection.message
            found = Rejected(client, node.user_agent, outcome.type, names, message)
            self._context.loop.call_soon_threadsafe(self._context.rejected, found)


def status_of(error: RequestError) -> grpc.StatusCode:
    """The status with which a stream ends because of an error."""
    if isinstance(error, ExhaustedError):
        return grpc.StatusCode.RESOURCE_EXHAUSTED
    forbidden = isinstance(error, ForbiddenError)
    return grpc.StatusCode.PERMISSION_DENIED if forbidden else grpc.StatusCode.INVALID_ARGUMENT


@functools.cache
def _requests(type_: ResourceType | None, kind: RequestKind) -> Counter:
    """The counter of these requests. Finding a counter by its labels costs more than counting."""
    return metrics.requests.labels(type_.label if type_ else "other", kind.value)


@functools.cache
def _responses(type_: ResourceType) -> Counter:
    return metrics.responses.labels(type_.label)


def _decode(encoded: bytes) -> Any:
    try:
        return discovery_pb2.DiscoveryRequest.FromString(encoded)
    except DecodeError as error:
        raise InvalidRequestError("this is not a DiscoveryRequest") from error


def _some(names: Iterable[str]) -> list[str]:
    """The first few names, cut to a length that fits a log line."""
    return [name[:200] for name in itertools.islice(names, MAX_NAMES_LOGGED)]
