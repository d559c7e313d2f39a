"""ClientStatusDiscoveryService for all connected clients.

For tools that speak the protocol, such as grpcdebug, and for grpcurl by reflection. It tells everything about every
client, so it must be served only where operators reach it.
https://github.com/grpc/proposal/blob/master/A40-csds-support.md
"""

from collections.abc import Iterable, Iterator
from typing import Any

import grpc
from envoy.admin.v3 import config_dump_shared_pb2
from envoy.config.core.v3 import base_pb2
from envoy.service.status.v3 import csds_pb2
from google.protobuf import any_pb2

from xds_server.ads.servicer import AdsServicer
from xds_server.ads.session import ResourceStatus, Status
from xds_server.ads.stream import Stream
from xds_server.cache.cache import Cache

SERVICE = csds_pb2.DESCRIPTOR.services_by_name["ClientStatusDiscoveryService"].full_name

# The status as the server sees it, and as the client itself would report it.
_STATUSES = {
    Status.MISSING: (csds_pb2.NOT_SENT, config_dump_shared_pb2.REQUESTED),
    Status.SENT: (csds_pb2.STALE, config_dump_shared_pb2.REQUESTED),
    Status.ACKNOWLEDGED: (csds_pb2.SYNCED, config_dump_shared_pb2.ACKED),
    Status.REJECTED: (csds_pb2.ERROR, config_dump_shared_pb2.NACKED),
}


class StatusServicer:
    """Answers from the open streams, as they are at each request."""

    def __init__(self, ads: AdsServicer, cache: Cache) -> None:
        self._ads = ads
        self._cache = cache

    def handler(self) -> grpc.GenericRpcHandler:
        """The handler to register with a server."""
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
            # gRPC clients answer in the same way; a wrong selection would be worse than none.
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "node_matchers are not supported; leave them out")
        with self._cache.lock:
            found = [(stream, tuple(stream.session.statuses())) for stream in self._ads.streams]
        exclude = request.exclude_resource_contents
        return csds_pb2.ClientStatusResponse(
            config=[_client(stream, statuses, exclude_contents=exclude) for stream, statuses in found]
        )


def _client(
    stream: Stream, statuses: Iterable[ResourceStatus], *, exclude_contents: bool
) -> csds_pb2.ClientConfig:
    """One stream. A client with several targets has several, all with its node."""
    return csds_pb2.ClientConfig(
        node=base_pb2.Node.FromString(stream.session.node.encoded),
        client_scope=f"stream {stream.number} from {stream.call.peer}",
        generic_xds_configs=[_config(status, exclude_contents=exclude_contents) for status in statuses],
    )


def _config(status: ResourceStatus, *, exclude_contents: bool) -> csds_pb2.ClientConfig.GenericXdsConfig:
    """One resource on one stream."""
    at_server, at_client = _STATUSES[status.status]
    config = csds_pb2.ClientConfig.GenericXdsConfig(
        type_url=status.type.value, name=status.name, config_status=at_server, client_status=at_client
    )
    if status.resource is not None:
        config.version_info = status.resource.version
        if not exclude_contents:
            config.xds_config.CopyFrom(any_pb2.Any(type_url=status.type.value, value=status.resource.body))
    if status.rejection is not None:
        config.error_state.version_info = status.rejection.version
        config.error_state.details = status.rejection.message
    return config
