"""gRPC health checking (grpc.health.v1), NOT_SERVING until told otherwise.

A program ends the watches just before it stops its server: an open one would use up the server's grace.
"""

import asyncio
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

WATCHES = 16
"""How many watches a server with threads answers at a time; more wait for one of these to end."""


class AsyncHealth(health_pb2_grpc.HealthServicer):  # type: ignore[misc] # the package has no types
    """Health checking for an asyncio server.

    Not the stock servicer: a change waits there until all clients that watch have taken the last one, and a watch
    that is cancelled while it sends never ends.
    """

    def __init__(self, services: Iterable[str]) -> None:
        self._statuses = dict.fromkeys(("", *services), HealthCheckResponse.NOT_SERVING)
        self._changed = asyncio.Event()
        self._ended = False

    async def Check(  # noqa: N802 - the method's name
        self, request: HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> HealthCheckResponse:
        """Returns the status of a service."""
        if request.service not in self._statuses:
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return HealthCheckResponse(status=self._statuses[request.service])

    async def Watch(  # noqa: N802 - the method's name
        self, request: HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        """Sends the status and its changes until the client or `end_watches` ends it."""
        sent = None
        while not self._ended:
            changed = self._changed
            status = self._statuses.get(request.service, HealthCheckResponse.SERVICE_UNKNOWN)
            if status != sent:
                await context.write(HealthCheckResponse(status=status))
                sent = status
            await changed.wait()

    def set(self, service: str, status: HealthCheckResponse.ServingStatus.ValueType) -> None:
        """Sets the status of a service."""
        self._statuses[service] = status
        self._notify()

    def enter_graceful_shutdown(self) -> None:
        """Sets all services to NOT_SERVING."""
        self._statuses = dict.fromkeys(self._statuses, HealthCheckResponse.NOT_SERVING)
        self._notify()

    def end_watches(self) -> None:
        """Ends all watches, also those to come."""
        self._ended = True
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class ThreadedHealth(health.HealthServicer):  # type: ignore[misc] # the package has no types
    """The stock servicer for a server with threads. Watches get their own, so that no check waits for them."""

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


def add(server: grpc.aio.Server, services: Iterable[str]) -> AsyncHealth:
    """Adds health checking to a server, overall ("") and for `services`, all NOT_SERVING until told otherwise."""
    servicer = AsyncHealth(services)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    return servicer


def add_with_threads(server: grpc.Server, services: Iterable[str]) -> ThreadedHealth:
    """Adds the same to a server without asyncio."""
    servicer = ThreadedHealth()
    for service in ("", *services):
        servicer.set(service, HealthCheckResponse.NOT_SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    return servicer
