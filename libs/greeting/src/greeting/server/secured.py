"""A greeter that asks xds-server whether to encrypt, and whom to let in (gRFC A36).

Its port is closed until xds-server has answered. Health is on a port of its own without encryption, for Kubernetes, which
has no certificate.
"""

import asyncio
import contextlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc
import structlog
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_reflection.v1alpha import reflection

from greeter.v1 import greeter_pb2_grpc
from greeting import bootstrap
from greeting.server.servicer import Greeter, SyncGreeter
from servicekit import health, listening
from servicekit.health import AsyncHealth

log = structlog.get_logger()

THREADS = 16
"""Calls that are answered at a time: grpc.aio has no servers that use xDS, so each takes a thread."""
POLL_PERIOD, POLL_PERIOD_WHEN_OPEN = 0.2, 5.0
"""How often to look whether the port is open, in seconds: grpc tells only its log."""
CONNECT_TIMEOUT = 2.0
PATIENCE = 5.0
"""Seconds until the log says that xds-server has not answered."""


class SecuredServer:
    """Serves the greeter as xds-server says.

    Args:
        greeter: Answers the calls.
        services: The names of all services, for reflection and health.
        port: Where clients connect.
        health_port: Where health is.

    Raises:
        ConfigurationError: There is no bootstrap that gRPC could use.
        AddressError: A port can't be listened on.
    """

    def __init__(self, greeter: Greeter, services: Sequence[str], *, port: int, health_port: int) -> None:
        found = bootstrap.read(os.environ)
        log.info("bootstrap", xds_server=found.xds_server, node=found.node_id, source=found.source)
        self._greeter = greeter
        self._server = grpc.server(
            ThreadPoolExecutor(THREADS, thread_name_prefix="greets"),
            options=listening.SERVER_OPTIONS,
            xds=True,
        )
        greeter_pb2_grpc.add_GreeterServicer_to_server(SyncGreeter(greeter), self._server)  # type: ignore[arg-type]
        reflection.enable_server_reflection([*services, reflection.SERVICE_NAME], self._server)
        # Without encryption only if xds-server says so.
        credentials = grpc.xds_server_credentials(grpc.insecure_server_credentials())
        listening.bind(self._server, f"[::]:{port}", credentials)
        self.port = port
        self._health_server = grpc.aio.server(options=listening.SERVER_OPTIONS)
        self.health: AsyncHealth = health.add(self._health_server, services)
        listening.bind(self._health_server, f"[::]:{health_port}")
        self._services = ("", *services)
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts to serve; it is SERVING once the port is open."""
        self._server.start()
        await self._health_server.start()
        self._watch = asyncio.create_task(self._watch_port())

    def drain(self) -> None:
        """Is NOT_SERVING from now on, and still answers."""
        if self._watch is not None:
            self._watch.cancel()
        self.health.enter_graceful_shutdown()

    async def stop(self, grace: float) -> None:
        """Ends, after the calls that run."""
        self.health.end_watches()
        await asyncio.to_thread(self._server.stop(grace).wait)
        await self._health_server.stop(0)

    async def _watch_port(self) -> None:
        """Keeps health in line with whether the port is open."""
        is_open: bool | None = None
        began = asyncio.get_running_loop().time()
        while True:
            was_open, is_open = is_open, await _is_open(self.port)
            if is_open != was_open:
                status = HealthCheckResponse.SERVING if is_open else HealthCheckResponse.NOT_SERVING
                for service in self._services:
                    self.health.set(service, status)
                if is_open:
                    log.info("serving", port=self.port, hostname=self._greeter.hostname, ip=self._greeter.ip)
            if not is_open and asyncio.get_running_loop().time() - began > PATIENCE:
                began = float("inf")
                log.warning(
                    "xds-server does not say how to serve, so the port is closed",
                    port=self.port,
                    hint="does it run, does a Service select this pod, and does the bootstrap have the certificate "
                    "provider of the Service's policy? its log and its page tell",
                )
            await asyncio.sleep(POLL_PERIOD_WHEN_OPEN if is_open else POLL_PERIOD)


async def _is_open(port: int) -> bool:
    """Whether somebody listens on a port of this machine."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            _, writer = await asyncio.open_connection("localhost", port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
