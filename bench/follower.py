"""Calls a target again and again, and says on stdout when the host that replies is another: ``HOST at SECONDS``.

    follower.py TARGET SECONDS_BETWEEN_CALLS

A program of its own, because gRPC reads the bootstrap once a process. The clock is the monotonic one, which all
processes of a machine share.
"""

import sys
import time

import grpc

from greeter.v1.greeter_pb2 import SayHelloRequest
from greeter.v1.greeter_pb2_grpc import GreeterStub


def main(target: str, interval: float) -> None:
    """Call until the end."""
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
