"""AggregatedDiscoveryService over grpc.aio: reads requests, writes responses, and leaves what is said to the session."""

import asyncio
import functools
import itertools
import logging
from collections.abc import AsyncIterator, Collection, Iterable

import grpc
import structlog
from envoy.service.discovery.v3 import ads_pb2, discovery_pb2
from google.protobuf.message import DecodeError

from xds_server import metrics
from xds_server.ads.session import InvalidRequestError, Kind, Outcome, Response, Session
from xds_server.cache import Cache

SERVICE = ads_pb2.DESCRIPTOR.services_by_name["AggregatedDiscoveryService"].full_name
MAX_STREAMS = 20_000
WRITE_SECONDS = 30.0
"""How long a client may leave a response unread before it is given up."""
GATHER_SECONDS = 0.1
"""How close changes are gathered into one response: no stream gets more than ten of a type a second unasked."""
MAX_NAMES_LOGGED = 5

log = structlog.get_logger()

# To find a counter by its labels costs more than to count.
_requests = functools.cache(metrics.requests.labels)
_responses = functools.cache(metrics.responses.labels)


class AdsServicer:
    """Serves every client from one cache, each stream by itself."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._numbers = itertools.count(1)
        self._streams: dict[int, Stream] = {}
        self._closing = False

    def handler(self) -> grpc.GenericRpcHandler:
        """What a server needs to route calls here."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "StreamAggregatedResources": grpc.stream_stream_rpc_method_handler(
                    self._stream,
                    # Bytes in and out: a request that can't be decoded is the session's to refuse, and responses
                    # are serialised already.
                ),
                "DeltaAggregatedResources": grpc.stream_stream_rpc_method_handler(self._delta),
            },
        )

    @property
    def streams(self) -> Collection["Stream"]:
        """The open streams, for who looks."""
        return self._streams.values()

    def close(self) -> None:
        """Tells every stream to go, so that clients turn to another server at once."""
        self._closing = True
        for stream in self._streams.values():
            stream.wake.set()

    async def _stream(
        self,
        requests: AsyncIterator[bytes],
        context: grpc.aio.ServicerContext[bytes, bytes],
    ) -> None:
        if len(self._streams) >= MAX_STREAMS:
            log.warning("too many streams; a new one is refused", streams=MAX_STREAMS, peer=context.peer())
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MAX_STREAMS} streams are open; try another server"
            )
        number = next(self._numbers)
        stream = self._streams[number] = Stream(number, self._cache, context.peer())
        metrics.streams.set(len(self._streams))
        reader = asyncio.create_task(stream.read(requests), name=f"reader of stream {number}")
        try:
            while not (self._closing or stream.given_up or reader.done()):
                await stream.wake.wait()
                stream.wake.clear()
                # All at once: what changes while these are written belongs to the next round.
                for response in list(iter(stream.session.next, None)):
                    stream.writing(response)
                    await context.write(response.body)
                    stream.written()
            if stream.given_up:
                await context.abort(
                    grpc.StatusCode.DEADLINE_EXCEEDED, f"nothing was read for {WRITE_SECONDS:g} s"
                )
            if self._closing:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "xds-server is shutting down")
            await reader
        except InvalidRequestError as error:
            stream.log.warning("request refused", reason=str(error))
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        finally:
            reader.cancel()
            stream.close()
            del self._streams[number]
            metrics.streams.set(len(self._streams))
            stream.log.info("stream closed", node=stream.session.node.id)

    async def _delta(self, _: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        """The incremental variant, which no gRPC client speaks."""
        log.warning(
            "a client asks for delta xDS, which is not served; it must use State of the World",
            peer=context.peer(),
        )
        await context.abort(
            grpc.StatusCode.UNIMPLEMENTED,
            "delta xDS is not served; use StreamAggregatedResources (State of the World)",
        )


class Stream:
    """A stream's session, with what its log lines and its description need."""

    def __init__(self, number: int, cache: Cache, peer: str) -> None:
        self.wake = asyncio.Event()
        self.session = Session(cache, asked=self.wake.set, changed=self._wake_in_time)
        self.given_up = False
        self._loop = asyncio.get_running_loop()
        self._quiet_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._writing_since: float | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self.number = number
        self.peer = peer
        self.log = log.bind(stream=number, peer=peer)
        self._debugging = self.log.is_enabled_for(logging.DEBUG)

    async def read(self, requests: AsyncIterator[bytes]) -> None:
        """Takes requests until the client ends the stream; the writer is woken at the end too."""
        try:
            first = True
            async for encoded in requests:
                request = _decode(encoded)
                outcome = self.session.request(request)
                if first:
                    first = False
                    node = self.session.node
                    client = f"{node.user_agent_name} {node.user_agent_version}".strip()
                    self.log.info("stream opened", node=node.id, client=client)
                self._note(outcome, request)
        finally:
            self.wake.set()

    def writing(self, response: Response) -> None:
        """Counts and logs a response that is about to be written, and sees to it that it is read in time."""
        self._writing_since = self._loop.time()
        self._quiet_until = self._writing_since + GATHER_SECONDS
        if self._deadline is None:
            self._deadline = self._loop.call_later(WRITE_SECONDS, self._look)
        label = response.type.label
        _responses(label).inc()
        if self._debugging:
            self.log.debug(
                "response",
                type=label,
                version=response.version,
                nonce=response.nonce,
                names=_some(response.names),
            )

    def written(self) -> None:
        """Takes the news that the client has read so far."""
        self._writing_since = None

    def _look(self) -> None:
        """Gives the client up if its time is over. One timer does for many writes: most end at once."""
        self._deadline = None
        if self._writing_since is None:
            return
        left = self._writing_since + WRITE_SECONDS - self._loop.time()
        if left > 0:
            self._deadline = self._loop.call_later(left, self._look)
        else:
            self._give_up()

    def _give_up(self) -> None:
        """Drops what is kept for a client that does not read.

        No status can overtake the message that it leaves unread, so the call ends when it reads again, when its
        connection breaks, or when that reaches its age.
        """
        self.given_up = True
        self.session.close()
        metrics.write_timeouts.inc()
        self.log.warning(
            "client does not read; its stream ends", node=self.session.node.id, seconds=WRITE_SECONDS
        )

    def close(self) -> None:
        """Ends all that goes on for the stream."""
        for timer in (self._timer, self._deadline):
            if timer is not None:
                timer.cancel()
        self.session.close()

    def _wake_in_time(self) -> None:
        """Lets the first change after a quiet moment out at once, and gathers those that follow closely."""
        if self._timer is not None:
            return
        if self._loop.time() >= self._quiet_until:
            self.wake.set()
        else:
            self._timer = self._loop.call_at(self._quiet_until, self._wake_late)

    def _wake_late(self) -> None:
        self._timer = None
        self.wake.set()

    def _note(self, outcome: Outcome, request: discovery_pb2.DiscoveryRequest) -> None:
        """Counts and logs what a request meant."""
        label = outcome.type.label if outcome.type else "other"
        _requests(label, outcome.kind.value).inc()
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


def _decode(encoded: bytes) -> discovery_pb2.DiscoveryRequest:
    try:
        return discovery_pb2.DiscoveryRequest.FromString(encoded)
    except DecodeError as error:
        raise InvalidRequestError("this is not a DiscoveryRequest") from error


def _some(names: Iterable[str]) -> list[str]:
    """The first few names, cut to a length that a log line can bear."""
    return [name[:200] for name in itertools.islice(names, MAX_NAMES_LOGGED)]
