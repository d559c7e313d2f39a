"""The greeter's one method."""

import random
from typing import Any

import grpc

from greeter.v1 import greeter_pb2_grpc
from greeter.v1.greeter_pb2 import SayHelloRequest, SayHelloResponse


class Greeter(greeter_pb2_grpc.GreeterServicer):
    """Greets, and names the host that greeted; fails `fail_percent` of a hundred calls on purpose.

    Attributes:
        hostname: In replies.
        ip: In replies.
    """

    def __init__(self, greeting: str, hostname: str, ip: str, fail_percent: int = 0) -> None:
        self._greeting = greeting
        self.hostname = hostname
        self.ip = ip
        self._fail_percent = fail_percent

    async def SayHello(  # noqa: N802 - the API's name
        self, request: SayHelloRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> SayHelloResponse:
        """Greets a name."""
        if failure := self.failure():
            await context.abort(grpc.StatusCode.UNAVAILABLE, failure)
        return self.greet(request.name)

    def greet(self, name: str) -> SayHelloResponse:
        """The reply to a name."""
        message = f"{self._greeting} {name} from host {self.hostname} ({self.ip})"
        return SayHelloResponse(message=message, hostname=self.hostname, ip=self.ip)

    def failure(self) -> str:
        """Why a call fails on purpose; empty if it does not."""
        if random.random() * 100 >= self._fail_percent:  # noqa: S311 - nothing secret
            return ""
        return f"{self.hostname} fails {self._fail_percent} % of its calls"


class SyncGreeter:
    """The same for a server with threads."""

    def __init__(self, greeter: Greeter) -> None:
        self._greeter = greeter

    def SayHello(self, request: SayHelloRequest, context: grpc.ServicerContext) -> SayHelloResponse:  # noqa: N802
        """Greets a name."""
        if failure := self._greeter.failure():
            context.abort(grpc.StatusCode.UNAVAILABLE, failure)
        return self._greeter.greet(request.name)
