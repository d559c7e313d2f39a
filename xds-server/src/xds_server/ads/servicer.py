"""AggregatedDiscoveryService: opens, closes and supervises the streams."""

import asyncio
import itertools
import time
from collections.abc import Callable, Collection, Iterator

import grpc
from envoy.service.discovery.v3 import ads_pb2

from xds_server import metrics
from xds_server.admission import Admission
from xds_server.ads.limits import Limits, Usage
from xds_server.ads.stream import Context, Pace, Rejected, Stream, status_of
from xds_server.cache.cache import Cache
from xds_server.client_log import ClientLog, address
from xds_server.errors import ExhaustedError, RequestError
from xds_server.rpc.call import Call, Transport

SERVICE = ads_pb2.DESCRIPTOR.services_by_name["AggregatedDiscoveryService"].full_name
STREAM_METHOD = f"/{SERVICE}/StreamAggregatedResources"


class AdsServicer:
    """Serves every client from one cache, each stream by itself. Belongs to the running event loop.

    Args:
        cache: Where resources come from.
        transport: How calls are served.
        limits: How much clients may hold.
        pace: When responses are written.
        probe_node: The node id of this server's own probe.
        admission: Who may connect; None: everybody.
    """

    def __init__(  # noqa: PLR0913 - each is one thing
        self,
        cache: Cache,
        transport: Transport,
        *,
        limits: Limits | None = None,
        pace: Pace | None = None,
        probe_node: str | None = None,
        admission: Admission | None = None,
    ) -> None:
        self._cache = cache
        self._transport = transport
        self._admission = admission
        self._usage = Usage(limits or Limits())
        loop = asyncio.get_running_loop()
        self._context = Context(cache, pace or Pace(), loop, probe_node, self._report)
        self._log = ClientLog()
        self._numbers = itertools.count(1)
        self._streams: dict[int, Stream] = {}
        self._closing = False
        self._rejected: Callable[[Rejected], None] | None = None

    def handler(self) -> grpc.GenericRpcHandler:
        """The handler to register with a server."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "StreamAggregatedResources": self._transport.method(self._open),
                "DeltaAggregatedResources": grpc.stream_stream_rpc_method_handler(self._refuse_delta),
            },
        )

    def report_to(self, rejected: Callable[[Rejected], None]) -> None:
        """Sets what is called, in the event loop, for every response that a client rejects."""
        self._rejected = rejected

    @property
    def streams(self) -> Collection[Stream]:
        """The open streams, for whoever looks and holds the cache's lock."""
        return self._streams.values()

    async def close_stuck_streams(self) -> None:
        """Closes streams whose client stopped reading or never sent a request, until it is cancelled."""
        pace = self._context.pace
        while True:
            await asyncio.sleep(min(pace.write_timeout, pace.first_request_timeout) / 10)
            now = time.monotonic()
            with self._cache.lock:
                for stream in self._streams.values():
                    stream.close_if_stuck(now)

    def relocate(self, nodes: Collection[str]) -> None:
        """Follows the clients on these nodes to the zones that the nodes are in now."""
        with self._cache.lock:
            for stream in self._streams.values():
                if stream.session.node.client.node in nodes:
                    stream.session.relocate()

    def close(self) -> None:
        """Ends every stream, so that clients turn to another server at once; opens no more."""
        with self._cache.lock:
            self._closing = True
            for stream in self._streams.values():
                stream.call.end(grpc.StatusCode.UNAVAILABLE, "xds-server is shutting down")

    def _open(self, call: Call) -> None:
        """Starts to serve a new call."""
        log = self._log.bind(peer=call.peer)
        with self._cache.lock:
            if self._closing:
                call.end(grpc.StatusCode.UNAVAILABLE, "xds-server is shutting down")
                return
            try:
                identity = self._admission.identify(call.uris) if self._admission else None
                allowance = self._usage.open(str(identity or address(call.peer)))
            except RequestError as error:
                exhausted = isinstance(error, ExhaustedError)
                hint = "run more replicas of xds-server" if exhausted else "see docs/security.md"
                log.warning("stream refused", reason=str(error), hint=hint)
                call.end(status_of(error), str(error))
                return
            number = next(self._numbers)
            stream = Stream(
                number,
                call,
                self._context,
                allowance,
                log,
                self._forget,
                identity,
            )
            self._streams[number] = stream
            metrics.streams.set(len(self._streams))
            call.serve(stream)

    def _report(self, rejected: Rejected) -> None:
        if self._rejected is not None:
            self._rejected(rejected)

    def _forget(self, number: int) -> None:
        self._streams.pop(number, None)
        metrics.streams.set(len(self._streams))

    def _refuse_delta(self, _: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """Refuses the incremental variant, which no gRPC client speaks."""
        self._log.bind(peer=context.peer()).warning(
            "client asked for delta xDS, which is not served", hint="use State of the World"
        )
        context.abort(
            grpc.StatusCode.UNIMPLEMENTED,
            "delta xDS is not served; use StreamAggregatedResources (State of the World)",
        )
