"""The greeter's one method."""

import random
from typing import Any

import grpc

from greeter.v1 import greeter_pb2_grpc
from greeter.v1.greeter_pb2 import SayHelloRequest, SayHelloResponse


class Greeter(greeter_pb2_grpc.GreeterServicer):
    """Greets, and names the host that greeted; fails `fail_percent` of a hundred calls on purpose."""

    def __init__(self, greeting: str, hostname: str, ip: str, fail_percent: int = 0) -> None:
        self._greeting = greeting
        self._hostname = hostname
        self._ip = ip
        self._fail_percent = fail_percent

    async def SayHello(  # noqa: N802 - the API's name
        self, request: SayHelloRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> SayHelloResponse:
        """Greets a name."""
        if random.random() * 100 < self._fail_percent:  # noqa: S311 - nothing secret
            await context.abort(
                grpc.StatusCode.UNAVAILABLE, f"{self._hostname} fails {self._fail_percent} % of its calls"
            )
        message = f"{self._greeting} {request.name} from host {self._hostname} ({self._ip})"
        return SayHelloResponse(message=message, hostname=self._hostname, ip=self._ip)
