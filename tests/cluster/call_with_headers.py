"""Runs in a pod. Usage: TARGET TIMES NAME=VALUE...: prints, as a JSON list, the host that replied or the error."""

import json
import sys
from collections.abc import Iterator

import grpc

from greeter.v1.greeter_pb2 import SayHelloRequest
from greeter.v1.greeter_pb2_grpc import GreeterStub

TIMEOUT = 5


def replies(target: str, times: int, headers: tuple[tuple[str, str], ...]) -> Iterator[str]:
    """Calls, and yields what came of each call."""
    with grpc.insecure_channel(target) as channel:
        stub = GreeterStub(channel)
        for _ in range(times):
            try:
                yield stub.SayHello(SayHelloRequest(name="tests"), timeout=TIMEOUT, metadata=headers).hostname
            except grpc.RpcError as error:
                yield f"{error.code().name}: {error.details()}"


if __name__ == "__main__":
    target, times, *pairs = sys.argv[1:]
    headers = tuple((name, value) for name, _, value in (pair.partition("=") for pair in pairs))
    print(json.dumps(list(replies(target, int(times), headers))))  # noqa: T201
