"""Calls each of the targets once, with a gRPC client, and prints the host names of those that answered, as JSON.

A program of its own, because gRPC reads the bootstrap once a process.
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
