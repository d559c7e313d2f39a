"""AggregatedDiscoveryService: carries requests to the sessions and responses from them, each stream by itself.

What is said is the session's. Sessions and the cache are in the hands of whoever holds the cache's lock: a thread of
grpc's, for what comes from clients, or the event loop, for what comes from discovery.
"""

import asyncio
import functools
import itertools
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import structlog
from envoy.service.discovery.v3 import ads_pb2, discovery_pb2
from google.protobuf.message import DecodeError
from prometheus_client import Counter

from xds_server import metrics
from xds_server.ads.call import Call, method_handler
from xds_server.ads.session import InvalidRequestError, Kind, Outcome, Response, Session
from xds_server.cache import Cache
from xds_server.resources.types import ResourceType

SERVICE = ads_pb2.DESCRIPTOR.services_by_name["AggregatedDiscoveryService"].full_name
MAX_STREAMS = 20_000
WRITE_SECONDS = 30.0
"""How long a client may leave a response unread before it is given up."""
GATHER_SECONDS = 0.1
"""How close changes are gathered: no stream is told of changes more than ten times a second."""
MAX_NAMES_LOGGED = 5

log = structlog.get_logger()


@functools.cache
def _requests(kind: ResourceType | None, meant: Kind) -> Counter:
    """To find a counter by its labels costs more than to count."""
    return metrics.requests.labels(kind.label if kind else "other", meant.value)


@functools.cache
def _responses(kind: ResourceType) -> Counter:
    return metrics.responses.labels(kind.label)


class AdsServicer:
    """Serves every client from one cache, each stream by itself. Belongs to the running event loop."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self._streams: dict[int, Stream] = {}
        self._closing = False
        self._opening = ThreadPoolExecutor(1, thread_name_prefix="opens streams")

    def handler(self) -> grpc.GenericRpcHandler:
        """What a server needs to route calls here."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                # Bytes in and out: a request that can't be decoded is the session's to refuse, and responses are
                # serialised already.
                "StreamAggregatedResources": method_handler(self._open, self._opening),
                "DeltaAggregatedResources": grpc.stream_stream_rpc_method_handler(_refuse_delta),
            },
        )

    @property
    def streams(self) -> Collection["Stream"]:
        """The open streams, for who looks and holds the cache's lock."""
        return self._streams.values()

    async def watch_writes(self) -> None:
        """Gives up who does not read, until it is cancelled."""
        while True:
            await asyncio.sleep(WRITE_SECONDS / 10)
            latest = time.monotonic() - WRITE_SECONDS
            with self._cache.lock:
                for stream in self._streams.values():
                    if stream.writing_since < latest:
                        stream.give_up()

    def close(self) -> None:
        """Tells every stream to go, so that clients turn to another server at once; opens no more."""
        with self._cache.lock:
            self._closing = True
            for stream in self._streams.values():
                stream.call.end(grpc.StatusCode.UNAVAILABLE, "xds-server is shutting down")

    def _open(self, call: Call) -> None:
        with self._cache.lock:
            if self._closing:
                call.end(grpc.StatusCode.UNAVAILABLE, "xds-server is shutting down")
                return
            if len(self._streams) >= MAX_STREAMS:
                log.warning("too many streams; a new one is refused", streams=MAX_STREAMS, peer=call.peer)
                call.end(
                    grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MAX_STREAMS} streams are open; try another server"
                )
                return
            number = next(self._numbers)
            stream = Stream(number, self._cache, call, self._loop, self._forget)
            self._streams[number] = stream
            metrics.streams.set(len(self._streams))
            call.serve(stream)

    def _forget(self, number: int) -> None:
        self._streams.pop(number, None)
        metrics.streams.set(len(self._streams))


def _refuse_delta(_: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    """The incremental variant, which no gRPC client speaks."""
    log.warning(
        "a client asks for delta xDS, which is not served; it must use State of the World",
        peer=context.peer(),
    )
    context.abort(
        grpc.StatusCode.UNIMPLEMENTED,
        "delta xDS is not served; use StreamAggregatedResources (State of the World)",
    )


class Stream:
    """A stream: its session, its call, and when what is to be said may be written.

    Args:
        number: By which people know it.
        cache: Where the session finds resources.
        call: That carries it.
        loop: Whose thread publishes changes.
        forget: Takes the number at the end.
    """

    def __init__(
        self,
        number: int,
        cache: Cache,
        call: Call,
        loop: asyncio.AbstractEventLoop,
        forget: Callable[[int], None],
    ) -> None:
        self.number = number
        self.call = call
        self.session = Session(cache, asked=self._asked, settled=self._settled)
        self.writing_since = float("inf")
        """When the response that is being written was begun; infinite if none is."""
        self.log = log.bind(stream=number, peer=call.peer)
        self._debugging = self.log.is_enabled_for(logging.DEBUG)
        self._cache = cache
        self._loop = loop
        self._forget = forget
        self._is_known = False
        self._has_news = False
        self._round: list[Response] = []
        self._quiet_until = 0.0
        self._is_waiting = False

    def received(self, message: bytes) -> None:
        """Takes a request."""
        with self._cache.lock:
            try:
                request = _decode(message)
                outcome = self.session.request(request)
            except InvalidRequestError as error:
                self.log.warning("request refused", reason=str(error))
                self.call.end(grpc.StatusCode.INVALID_ARGUMENT, str(error))
                return
            if not self._is_known:
                self._is_known = True
                node = self.session.node
                client = f"{node.user_agent_name} {node.user_agent_version}".strip()
                self.log.info("stream opened", node=node.id, client=client)
            self._note(outcome, request)
            self._write()

    def finished(self) -> None:
        """Ends the stream, as the client does."""
        with self._cache.lock:
            self.call.end(grpc.StatusCode.OK, "")

    def written(self) -> None:
        """Goes on with what is to be written."""
        with self._cache.lock:
            self.writing_since = float("inf")
            self._write()

    def ended(self) -> None:
        """Leaves nothing behind."""
        with self._cache.lock:
            self._forget(self.number)
            self.session.close()
            self._round.clear()
        self.log.info("stream closed", node=self.session.node.id)

    def give_up(self) -> None:
        """Ends the stream of a client that does not read."""
        metrics.write_timeouts.inc()
        self.log.warning(
            "client does not read; its stream ends", node=self.session.node.id, seconds=WRITE_SECONDS
        )
        self.writing_since = float("inf")
        # No status can overtake the response that is left unread.
        self.call.cancel()

    def _asked(self) -> None:
        """What the client asks for is answered without delay, by who has taken the request."""
        self._has_news = True

    def _settled(self) -> None:
        """Lets the first change after a quiet moment out at once, and gathers those that follow closely."""
        if self._is_waiting:
            return
        wait = self._quiet_until - time.monotonic()
        if wait <= 0:
            self._has_news = True
            self.call.guard(self._write)
        else:
            self._is_waiting = True
            self._loop.call_later(wait, self._waited)

    def _waited(self) -> None:
        with self._cache.lock:
            self._is_waiting = False
            self._settled()

    def _write(self) -> None:
        """Writes the next response, unless one is being written: whoever ends that comes here again."""
        if self.writing_since != float("inf") or self.call.is_ending:
            return
        if not self._round and self._has_news:
            # All at once: what changes while these are written belongs to the next round.
            self._has_news = False
            self._round = list(iter(self.session.next, None))
        if not self._round:
            return
        response = self._round.pop(0)
        self.writing_since = time.monotonic()
        self._quiet_until = self.writing_since + GATHER_SECONDS
        _responses(response.type).inc()
        if self._debugging:
            self.log.debug(
                "response",
                type=response.type.label,
                version=response.version,
                nonce=response.nonce,
                names=_some(response.names),
            )
        self.call.write(response.body)

    def _note(self, outcome: Outcome, request: Any) -> None:
        """Counts and logs what a request meant."""
        _requests(outcome.type, outcome.kind).inc()
        if outcome.kind is Kind.ACK and not outcome.missing and not self._debugging:
            return
        label = outcome.type.label if outcome.type else "other"
        if self._debugging:
            self.log.debug(
                "request",
                type=label,
                kind=outcome.kind.value,
                version=request.version_info,
                nonce=request.response_nonce,
                names=_some(request.resource_names),
            )
        if outcome.rejection is not None:
            metrics.rejections.labels(label).inc()
            self.log.warning(
                "client refuses a response; it keeps what it had",
                node=self.session.node.id,
                type=label,
                version=outcome.rejection.version,
                reason=outcome.rejection.message[:2000],
            )
        elif outcome.kind is Kind.UNKNOWN_TYPE:
            self.log.info("client asks for a type that is not served", type_url=request.type_url[:200])
        if outcome.missing:
            self.log.info(
                "client asks for what does not exist; it is answered when it appears",
                node=self.session.node.id,
                namespace=self.session.namespace,
                type=label,
                names=_some(outcome.missing),
            )


def _decode(encoded: bytes) -> Any:
    try:
        return discovery_pb2.DiscoveryRequest.FromString(encoded)
    except DecodeError as error:
        raise InvalidRequestError("this is not a DiscoveryRequest") from error


def _some(names: Iterable[str]) -> list[str]:
    """The first few names, cut to a length that a log line can bear."""
    return [name[:200] for name in itertools.islice(names, MAX_NAMES_LOGGED)]
