"""Calls each target once with a gRPC client, and prints the host that answered each, as JSON.

A separate program, because gRPC reads the bootstrap once per process.
"""

import json
import sys

import grpc

from greeter.v1.greeter_pb2 import SayHelloRequest
from greeter.v1.greeter_pb2_grpc import GreeterStub

TIMEOUT = 30.0


def call(target: str) -> str:
    with grpc.insecure_channel(target) as channel:
        try:
            reply = GreeterStub(channel).SayHello(SayHelloRequest(name="test"), timeout=TIMEOUT)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
        return reply.hostname


if __name__ == "__main__":
    print(json.dumps({target: call(target) for target in sys.argv[1:]}))  # noqa: T201
