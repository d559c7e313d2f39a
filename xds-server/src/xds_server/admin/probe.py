"""Whether ADS itself answers, end to end.

All streams are served by parts of grpc that nothing in this process can look into, so the probe opens a stream as a
client does, subscribes to a resource that exists, and waits for it. Before the first sync no client may be answered;
then the probe checks that a request reaches a session, by one that every session refuses.
"""

import asyncio
import contextlib
from collections.abc import Callable

import grpc
import structlog
from envoy.service.discovery.v3 import discovery_pb2

from xds_server.resources.types import ResourceType

log = structlog.get_logger()

PROBE_TIMEOUT = 3.0
"""Seconds; less than the timeoutSeconds of the kubelet's probes in k8s/base/xds-server."""

MAX_ATTEMPTS = 4


class AdsProbe:
    """Asks ADS as a client does.

    Args:
        address: Where the server is reached from this process.
        method: The path of the method.
        node: The node id that the probe's streams carry.
        find_name: Returns the name of a Cluster that exists, or None if there is none or nothing is synced yet.
        timeout: How long an answer may take, in seconds.
    """

    def __init__(
        self,
        address: str,
        method: str,
        *,
        node: str,
        find_name: Callable[[], str | None],
        timeout: float = PROBE_TIMEOUT,
    ) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=(("grpc.enable_http_proxy", 0),))
        self._method = self._channel.stream_stream(
            method,
            request_serializer=discovery_pb2.DiscoveryRequest.SerializeToString,
            response_deserializer=discovery_pb2.DiscoveryResponse.FromString,
        )
        self._node = node
        self._find_name = find_name
        self._timeout = timeout
        self._running: asyncio.Task[bool] | None = None

    async def answers(self) -> bool:
        """Whether ADS answers in time. Callers at the same time share one attempt."""
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._ask(), name="ADS probe")
        return await asyncio.shield(self._running)

    async def close(self) -> None:
        """Closes the connection."""
        if self._running is not None:
            self._running.cancel()
        await self._channel.close()

    async def _ask(self) -> bool:
        name = self._find_name()
        code, details = await self._try(name)
        if code is grpc.StatusCode.DEADLINE_EXCEEDED and name != (other := self._find_name()):
            # The resource was deleted meanwhile.
            name = other
            code, details = await self._try(name)
        # A request without a type is refused by every session, before and after the first sync. A server that is full
        # refuses the probe like any other client, and still serves those that it has.
        expected = grpc.StatusCode.INVALID_ARGUMENT if name is None else grpc.StatusCode.OK
        is_alive = code in (expected, grpc.StatusCode.RESOURCE_EXHAUSTED)
        if not is_alive:
            log.warning("ADS does not answer its probe", code=code.name, reason=details)
        return is_alive

    async def _try(self, name: str | None) -> tuple[grpc.StatusCode, str | None]:
        """Opens a stream and subscribes to a Cluster; returns how the stream ended.

        If a server refuses a stream while its client writes, grpc.aio may report INTERNAL instead of the server's status
        (https://github.com/grpc/grpc/issues/36066), in about one of ten such calls. So that is tried again.
        """
        for _ in range(MAX_ATTEMPTS - 1):
            code, details = await self._try_once(name)
            if code is not grpc.StatusCode.INTERNAL:
                return code, details
        return await self._try_once(name)

    async def _try_once(self, name: str | None) -> tuple[grpc.StatusCode, str | None]:
        request = discovery_pb2.DiscoveryRequest()
        request.node.id = self._node
        if name is not None:
            request.type_url = ResourceType.CLUSTER.value
            request.resource_names.append(name)
        stream = self._method(timeout=self._timeout, wait_for_ready=True)
        try:
            # An error of a write or read tells less than the status that the call ends with.
            with contextlib.suppress(grpc.aio.AioRpcError):
                await stream.write(request)
                if name is not None and await stream.read() is not grpc.aio.EOF:
                    await stream.done_writing()
            return await stream.code(), await stream.details()
        finally:
            stream.cancel()
