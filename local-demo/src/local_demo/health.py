"""Whether a program serves: asks its gRPC health service (grpc.health.v1) as kubelet's readiness probe does."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from servicekit.addresses import Address

_PERIOD = 1.0
_PERIOD_UNTIL_READY = 0.1
_TIMEOUT = 2.0
_FAILURE_THRESHOLD = 3
"""How many checks in a row have to fail; a single late answer is normal on a busy machine."""

_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 250),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)


async def follow(address: Address, certificate: Path | None) -> AsyncIterator[bool]:
    """Yields again and again whether the program that listens on `address` serves.

    Args:
        address: Where its health service is.
        certificate: The folder of the certificate to ask with; None: without encryption.
    """
    serves = False
    failed = 0
    async with _channel(address, certificate) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while True:
            try:
                answer = await stub.Check(
                    health_pb2.HealthCheckRequest(), timeout=_TIMEOUT, wait_for_ready=True
                )
            except grpc.aio.AioRpcError:
                failed += 1
                serves = serves and failed < _FAILURE_THRESHOLD
            else:
                failed = 0
                serves = answer.status == health_pb2.HealthCheckResponse.SERVING
            yield serves
            await asyncio.sleep(_PERIOD if serves else _PERIOD_UNTIL_READY)


def _channel(address: Address, certificate: Path | None) -> grpc.aio.Channel:
    if certificate is None:
        return grpc.aio.insecure_channel(str(address), options=_OPTIONS)
    authorities, key, chain = ((certificate / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt"))
    credentials = grpc.ssl_channel_credentials(authorities, key, chain)
    return grpc.aio.secure_channel(str(address), credentials, options=_OPTIONS)
