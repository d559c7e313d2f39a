"""A greeter that serves everybody, without encryption; health is on the same port."""

from collections.abc import Sequence

import grpc
import structlog
from grpc_health.v1.health import SERVICE_NAME as HEALTH
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_reflection.v1alpha import reflection

from greeter.v1 import greeter_pb2_grpc
from greeting.server.servicer import Greeter
from servicekit import health, listening

log = structlog.get_logger()


class PlainServer:
    """Serves the greeter without encryption, to everybody; health is on the same port.

    Raises:
        AddressError: The port can't be listened on.
    """

    def __init__(self, greeter: Greeter, services: Sequence[str], *, port: int) -> None:
        self._greeter = greeter
        self._services = ("", *services)
        self._server = grpc.aio.server(options=listening.SERVER_OPTIONS)
        greeter_pb2_grpc.add_GreeterServicer_to_server(greeter, self._server)
        self.health = health.add(self._server, services)
        reflection.enable_server_reflection([*services, HEALTH, reflection.SERVICE_NAME], self._server)
        self.port = listening.bind(self._server, f"[::]:{port}")

    async def start(self) -> None:
        """Starts to serve."""
        await self._server.start()
        for service in self._services:
            self.health.set(service, HealthCheckResponse.SERVING)
        log.info("serving", port=self.port, hostname=self._greeter.hostname, ip=self._greeter.ip)

    def drain(self) -> None:
        """Is NOT_SERVING from now on, and still answers."""
        self.health.enter_graceful_shutdown()

    async def stop(self, grace: float) -> None:
        """Ends, after the calls that run."""
        self.health.end_watches()
        await self._server.stop(grace)
