"""A gRPC client in Python, as a user writes it: reads commands from stdin and answers each on stdout, as lines of JSON."""

import json
import sys
from typing import Any

import grpc

from greeter.v1.greeter_pb2 import SayHelloRequest
from greeter.v1.greeter_pb2_grpc import GreeterStub


class Client:
    """Named channels."""

    def __init__(self) -> None:
        self._channels: dict[str, grpc.Channel] = {}

    def answer(self, line: str) -> dict[str, Any]:
        command = json.loads(line)
        match command.pop("do"):
            case "open":
                return self._open(**command)
            case "call":
                return self._call(**command)
            case "close":
                self._channels.pop(command["channel"]).close()
                return {}
            case other:
                return {"error": f"unknown command {other}"}

    def _open(self, channel: str, target: str, idle_seconds: float | None = None) -> dict[str, Any]:
        options = (
            [] if idle_seconds is None else [("grpc.client_idle_timeout_ms", round(idle_seconds * 1000))]
        )
        self._channels[channel] = grpc.insecure_channel(target, options=options)
        return {}

    def _call(
        self, channel: str, times: int, timeout_seconds: float, *, wait_for_ready: bool
    ) -> dict[str, Any]:
        say_hello = GreeterStub(self._channels[channel]).SayHello
        hosts, failures = [], []
        for _ in range(times):
            try:
                reply = say_hello(
                    SayHelloRequest(name="Python"), timeout=timeout_seconds, wait_for_ready=wait_for_ready
                )
            except grpc.RpcError as error:
                failures.append({"code": error.code().name, "details": error.details()})
            else:
                hosts.append(reply.hostname)
        return {"hosts": hosts, "failures": failures}

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()


def main() -> None:
    client = Client()
    for line in sys.stdin:
        print(json.dumps(client.answer(line)), flush=True)  # noqa: T201
    client.close()


if __name__ == "__main__":
    main()
