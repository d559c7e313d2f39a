"""The greeter's one method."""

from typing import Any

import grpc

from greeter.v1 import greeter_pb2_grpc
from greeter.v1.greeter_pb2 import SayHelloRequest, SayHelloResponse


class Greeter(greeter_pb2_grpc.GreeterServicer):
    """Greets, and names the host that greeted."""

    def __init__(self, greeting: str, hostname: str, ip: str) -> None:
        self._greeting = greeting
        self._hostname = hostname
        self._ip = ip

    async def SayHello(  # noqa: N802 - the API's name
        self, request: SayHelloRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> SayHelloResponse:
        """Greets a name."""
        del context
        message = f"{self._greeting} {request.name} from host {self._hostname} ({self._ip})"
        return SayHelloResponse(message=message, hostname=self._hostname, ip=self._ip)
