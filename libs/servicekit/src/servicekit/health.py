"""gRPC health checking (grpc.health.v1) with the stock servicers, NOT_SERVING until told otherwise.

A program ends the watches just before it stops its server: an open one would use up the server's grace.
It must not know when a program is healthy: the program says so through the servicer.
"""

import asyncio
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_health.v1.health import aio
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

WATCHES = 16
"""How many watches a server with threads answers at a time; more wait for one of these to end."""


class AsyncHealth(aio.HealthServicer):  # type: ignore[misc] # the package has no types
    """Health checking for an asyncio server."""

    def __init__(self) -> None:
        super().__init__()
        self._watches: set[asyncio.Timeout] = set()
        self._ended = False

    async def Watch(  # noqa: N802 - the method's name
        self, request: HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        """Sends the status and its changes until the client or `end_watches` ends it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(0 if self._ended else None) as watch:
                self._watches.add(watch)
                try:
                    await super().Watch(request, context)
                finally:
                    self._watches.remove(watch)

    def end_watches(self) -> None:
        """Ends all watches, also those to come."""
        self._ended = True
        for watch in self._watches:
            watch.reschedule(0)  # the beginning of the loop's clock has passed


class ThreadedHealth(health.HealthServicer):  # type: ignore[misc] # the package has no types
    """Health checking for a server with threads. Watches have threads of their own, so that no check waits for them."""

    def __init__(self) -> None:
        # Not "non-blocking", the default: a watch then waits for grpc's thread, which the end of another keeps waiting.
        super().__init__(
            experimental_non_blocking=False,
            experimental_thread_pool=ThreadPoolExecutor(WATCHES, thread_name_prefix="health watch"),
        )
        self._watches: set[grpc.ServicerContext] = set()
        self._ended = False

    def Watch(self, request: HealthCheckRequest, context: grpc.ServicerContext) -> Any:  # noqa: N802 - as above
        """Sends the status and its changes until the client or `end_watches` ends it."""
        self._watches.add(context)
        if self._ended or not context.add_callback(lambda: self._watches.discard(context)):
            self._watches.discard(context)
            context.cancel()
        return super().Watch(request, context)

    def end_watches(self) -> None:
        """Ends all watches, also those to come."""
        self._ended = True
        for context in self._watches.copy():
            context.cancel()


async def add(server: grpc.aio.Server, services: Iterable[str]) -> AsyncHealth:
    """Adds health checking to a server, overall ("") and for `services`, all NOT_SERVING until told otherwise."""
    servicer = AsyncHealth()
    for service in ("", *services):
        await servicer.set(service, HealthCheckResponse.NOT_SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    return servicer


def add_with_threads(server: grpc.Server, services: Iterable[str]) -> ThreadedHealth:
    """Adds the same to a server without asyncio."""
    servicer = ThreadedHealth()
    for service in ("", *services):
        servicer.set(service, HealthCheckResponse.NOT_SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    return servicer
