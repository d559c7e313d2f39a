"""ClientStatusDiscoveryService for all connected clients: what each was sent, and whether it took it.

For tools that speak the protocol, such as grpcdebug, and for grpcurl by reflection.
https://github.com/grpc/proposal/blob/master/A40-csds-support.md
"""

from collections.abc import Iterable, Iterator
from typing import Any

import grpc
from envoy.admin.v3 import config_dump_shared_pb2
from envoy.service.status.v3 import csds_pb2
from google.protobuf import any_pb2

from xds_server.ads.servicer import AdsServicer, Stream
from xds_server.ads.session import Held, Status
from xds_server.cache import Cache

SERVICE = csds_pb2.DESCRIPTOR.services_by_name["ClientStatusDiscoveryService"].full_name

# What the server makes of it, and what the client will say of itself.
_STATUSES = {
    Status.MISSING: (csds_pb2.NOT_SENT, config_dump_shared_pb2.REQUESTED),
    Status.SENT: (csds_pb2.STALE, config_dump_shared_pb2.REQUESTED),
    Status.ACKNOWLEDGED: (csds_pb2.SYNCED, config_dump_shared_pb2.ACKED),
    Status.REFUSED: (csds_pb2.ERROR, config_dump_shared_pb2.NACKED),
}


class StatusServicer:
    """Answers from the open streams, as they are at each request."""

    def __init__(self, ads: AdsServicer, cache: Cache) -> None:
        self._ads = ads
        self._cache = cache

    def handler(self) -> grpc.GenericRpcHandler:
        """What a server needs to route calls here."""
        options: dict[str, Any] = {
            "request_deserializer": csds_pb2.ClientStatusRequest.FromString,
            "response_serializer": csds_pb2.ClientStatusResponse.SerializeToString,
        }
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "FetchClientStatus": grpc.unary_unary_rpc_method_handler(self._answer, **options),
                "StreamClientStatus": grpc.stream_stream_rpc_method_handler(self._stream, **options),
            },
        )

    def _stream(
        self, requests: Iterator[csds_pb2.ClientStatusRequest], context: grpc.ServicerContext
    ) -> Iterator[csds_pb2.ClientStatusResponse]:
        for request in requests:
            yield self._answer(request, context)

    def _answer(
        self, request: csds_pb2.ClientStatusRequest, context: grpc.ServicerContext
    ) -> csds_pb2.ClientStatusResponse:
        if request.node_matchers:
            # As every gRPC client answers; a wrong selection would be worse than none.
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "node_matchers are not supported; leave them out")
        without = request.exclude_resource_contents
        with self._cache.lock:
            found = [(stream, tuple(stream.session.held())) for stream in self._ads.streams]
        return csds_pb2.ClientStatusResponse(
            config=[_client(stream, held, exclude_contents=without) for stream, held in found]
        )


def _client(stream: Stream, found: Iterable[Held], *, exclude_contents: bool) -> csds_pb2.ClientConfig:
    """One stream; a client with several targets has several, with one node."""
    return csds_pb2.ClientConfig(
        node=stream.session.node,
        client_scope=f"stream {stream.number} from {stream.call.peer}",
        generic_xds_configs=[_config(held, exclude_contents=exclude_contents) for held in found],
    )


def _config(held: Held, *, exclude_contents: bool) -> csds_pb2.ClientConfig.GenericXdsConfig:
    """One resource on one stream."""
    at_server, at_client = _STATUSES[held.status]
    config = csds_pb2.ClientConfig.GenericXdsConfig(
        type_url=held.type.value, name=held.name, config_status=at_server, client_status=at_client
    )
    if held.resource is not None:
        config.version_info = held.resource.version
        if not exclude_contents:
            config.xds_config.CopyFrom(any_pb2.Any(type_url=held.type.value, value=held.resource.body))
    if held.rejection is not None:
        config.error_state.version_info = held.rejection.version
        config.error_state.details = held.rejection.message
    return config
