"""gRPC health checking (grpc.health.v1), with the stock servicers.

It must not know when a program is healthy: the program says so through the servicer.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_health.v1.health import aio
from grpc_health.v1.health_pb2 import HealthCheckResponse

WATCHES = 16
"""That a server with threads serves at a time; more wait."""


class _AsyncServicer(aio.HealthServicer):  # type: ignore[misc] # the package has no types
    """The stock servicer, which calls a server healthy before it is told so, starting as NOT_SERVING."""

    def __init__(self, services: Iterable[str]) -> None:
        super().__init__()
        self._server_status = dict.fromkeys(["", *services], HealthCheckResponse.NOT_SERVING)


class _Servicer(health.HealthServicer):  # type: ignore[misc] # the package has no types
    """The same with threads: some for watches, and others for checks, which no watch may keep waiting."""

    def __init__(self, services: Iterable[str]) -> None:
        # Not "non-blocking": a watch would then wait for grpc's thread, which the end of another watch keeps waiting.
        super().__init__(
            experimental_non_blocking=False,
            experimental_thread_pool=ThreadPoolExecutor(WATCHES, thread_name_prefix="watches health"),
        )
        self._server_status = dict.fromkeys(["", *services], HealthCheckResponse.NOT_SERVING)

    def Check(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - the method's name
        """Answer at once."""
        return super().Check(request, context)

    Check.experimental_thread_pool = ThreadPoolExecutor(2, thread_name_prefix="checks health")  # type: ignore[attr-defined]


def add(server: grpc.aio.Server, services: Iterable[str]) -> aio.HealthServicer:
    """Add health checking, overall ("") and for `services`, all NOT_SERVING until told otherwise."""
    servicer = _AsyncServicer(services)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    return servicer


def add_with_threads(server: grpc.Server, services: Iterable[str]) -> health.HealthServicer:
    """Add the same to a server without asyncio."""
    servicer = _Servicer(services)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    return servicer
