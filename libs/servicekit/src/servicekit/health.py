"""gRPC health checking (grpc.health.v1), with the stock servicer.

It must not know when a program is healthy: the program says so through the servicer.
"""

from collections.abc import Iterable

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import aio
from grpc_health.v1.health_pb2 import HealthCheckResponse


class _Servicer(aio.HealthServicer):  # type: ignore[misc] # the package has no types
    """The stock servicer, which calls a server healthy before it is told so, starting as NOT_SERVING."""

    def __init__(self, services: Iterable[str]) -> None:
        super().__init__()
        self._server_status = dict.fromkeys(["", *services], HealthCheckResponse.NOT_SERVING)


def add(server: grpc.aio.Server, services: Iterable[str]) -> aio.HealthServicer:
    """Add health checking, overall ("") and for `services`, all NOT_SERVING until told otherwise."""
    servicer = _Servicer(services)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    return servicer
