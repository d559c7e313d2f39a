"""Calls a target repeatedly and prints ``HOST at SECONDS`` whenever a different host replies.

    follower.py TARGET SECONDS_BETWEEN_CALLS

A separate program, because gRPC reads the bootstrap once per process. The time is that of the monotonic clock, which
all processes of a machine share.
"""

import sys
import time

import grpc

from greeter.v1.greeter_pb2 import SayHelloRequest
from greeter.v1.greeter_pb2_grpc import GreeterStub


def main(target: str, interval: float) -> None:
    """Calls until the process is stopped."""
    with grpc.insecure_channel(target) as channel:
        stub = GreeterStub(channel)
        host = ""
        while True:
            reply = stub.SayHello(SayHelloRequest(name="bench"), timeout=10, wait_for_ready=True)
            if reply.hostname != host:
                host = reply.hostname
                print(f"{host} at {time.monotonic()}", flush=True)  # noqa: T201
            time.sleep(interval)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
