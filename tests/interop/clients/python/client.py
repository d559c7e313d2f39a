"""A gRPC client in Python, as a user writes it: reads commands from stdin and answers each on stdout, as lines of JSON."""

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import grpc
from grpc.experimental import insecure_channel_credentials

from greeter.v1.greeter_pb2 import SayHelloRequest, SayHelloResponse


class Result(NamedTuple):
    """A call that has ended: the host that replied, or the failure."""

    host: str
    failure: dict[str, Any] | None
    milliseconds: float


Call = Callable[[], Result]


class Load:
    """Calls that go on until they are stopped."""

    def __init__(self, call: Call, parallelism: int, interval: float) -> None:
        self._call = call
        self._interval = interval
        self._is_stopped = threading.Event()
        self._pool = ThreadPoolExecutor(parallelism)
        self._workers = [self._pool.submit(self._repeat) for _ in range(parallelism)]

    def stop(self) -> list[Result]:
        """Waits for the calls in flight and returns the results."""
        self._is_stopped.set()
        results = [result for worker in self._workers for result in worker.result()]
        self._pool.shutdown()
        return results

    def _repeat(self) -> list[Result]:
        results = []
        while not self._is_stopped.wait(self._interval):
            results.append(self._call())
        return results


class Client:
    """Named channels."""

    def __init__(self) -> None:
        self._channels: dict[str, grpc.Channel] = {}
        self._loads: dict[str, Load] = {}

    def answer(self, line: str) -> dict[str, Any]:
        command = json.loads(line)
        match command.pop("do"):
            case "open":
                return self._open(**command)
            case "call":
                return self._call(**command)
            case "load_start":
                return self._load_start(**command)
            case "load_stop":
                return self._load_stop(**command)
            case "close":
                self._channels.pop(command["channel"]).close()
                return {}
            case other:
                return {"error": f"unknown command {other}"}

    def _open(self, channel: str, target: str, idle_seconds: float | None = None) -> dict[str, Any]:
        options = (
            [] if idle_seconds is None else [("grpc.client_idle_timeout_ms", round(idle_seconds * 1000))]
        )
        # Encrypts if the control plane says so.
        encryption = grpc.xds_channel_credentials(insecure_channel_credentials())
        self._channels[channel] = grpc.secure_channel(target, encryption, options=options)
        return {}

    def _call(self, *, times: int, concurrency: int, **options: Any) -> dict[str, Any]:
        call = self._prepare(**options)
        with ThreadPoolExecutor(concurrency) as pool:
            results = list(pool.map(lambda _: call(), range(times)))
        return {
            "hosts": [result.host for result in results if result.failure is None],
            "failures": [result.failure for result in results if result.failure is not None],
            "milliseconds": [result.milliseconds for result in results],
        }

    def _load_start(
        self, channel: str, *, parallelism: int, interval_seconds: float, **options: Any
    ) -> dict[str, Any]:
        self._loads[channel] = Load(self._prepare(channel, **options), parallelism, interval_seconds)
        return {}

    def _load_stop(self, channel: str) -> dict[str, Any]:
        results = self._loads.pop(channel).stop()
        return {
            "hosts": Counter(result.host for result in results if result.failure is None),
            "failures": [result.failure for result in results if result.failure is not None],
            "slowest": max((result.milliseconds for result in results), default=0.0),
        }

    def _prepare(
        self,
        channel: str,
        *,
        method: str,
        metadata: Mapping[str, str],
        timeout_seconds: float,
        wait_for_ready: bool,
    ) -> Call:
        # Any method takes these messages, so that routes by method can be told apart.
        stub = self._channels[channel].unary_unary(
            method,
            request_serializer=SayHelloRequest.SerializeToString,
            response_deserializer=SayHelloResponse.FromString,
        )

        def call() -> Result:
            began = time.monotonic()
            try:
                reply = stub(
                    SayHelloRequest(name="Python"),
                    timeout=timeout_seconds,
                    metadata=tuple(metadata.items()),
                    wait_for_ready=wait_for_ready,
                )
            except grpc.RpcError as error:
                elapsed = _milliseconds_since(began)
                failure = {"code": error.code().name, "details": error.details(), "milliseconds": elapsed}
                return Result("", failure, elapsed)
            return Result(reply.hostname, None, _milliseconds_since(began))

        return call

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()


def _milliseconds_since(began: float) -> float:
    return round((time.monotonic() - began) * 1000, 1)


def main() -> None:
    client = Client()
    for line in sys.stdin:
        print(json.dumps(client.answer(line)), flush=True)  # noqa: T201
    client.close()


if __name__ == "__main__":
    main()
