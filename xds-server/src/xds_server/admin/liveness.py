"""Whether gRPC answers: all streams are served by one thread of grpc's, which nothing in this process can look at.

So it is asked as any client asks. It must not know whether the server is ready: any answer will do.
"""

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

log = structlog.get_logger()

ANSWER_SECONDS = 3.0
"""Less than kubelet waits for the page."""


class Liveness:
    """Asks for the server's health.

    Args:
        address: Where it is reached from this machine.
    """

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=(("grpc.enable_http_proxy", 0),))
        self._health = health_pb2_grpc.HealthStub(self._channel)

    async def answers(self) -> bool:
        """Whether an answer came in time."""
        request = health_pb2.HealthCheckRequest()
        try:
            await self._health.Check(request, timeout=ANSWER_SECONDS, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            log.warning("gRPC does not answer", code=error.code().name, reason=error.details())
            return False
        return True

    async def close(self) -> None:
        """Ends the connection."""
        await self._channel.close()
