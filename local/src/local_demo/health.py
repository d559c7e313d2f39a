"""Whether a program serves, as its gRPC health service says (grpc.health.v1), told at once.

It must not know what depends on it.
"""

import asyncio
from collections.abc import AsyncIterator

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from local_demo.addresses import Address

_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 250),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)


async def follow(address: Address) -> AsyncIterator[bool]:
    """Say whether what listens on `address` serves, now and at every change, for ever."""
    async with grpc.aio.insecure_channel(str(address), options=_OPTIONS) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while True:
            try:
                async for response in stub.Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True):
                    yield response.status == health_pb2.HealthCheckResponse.SERVING
            except grpc.aio.AioRpcError:
                # It has ended or does not listen yet. Its own log says why; here it counts as not serving.
                yield False
            await asyncio.sleep(0.1)
