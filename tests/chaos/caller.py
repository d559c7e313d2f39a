"""Calls a target at a constant rate and reports the results.

    caller.py TARGET CALLS_A_SECOND [CHANNEL_OPTION=NUMBER]...

A separate program, because gRPC reads the bootstrap once per process. Calls do not wait for each other, so that a call
that hangs does not lower the rate. They do not set `wait_for_ready`, so that a connection error is a failed call.
Prints a line of JSON every tenth of a second: the numbers of sent and failed calls, when each host replied first and
last, and the new failures. After SIGTERM it waits for calls in flight and marks its last line.
"""

import asyncio
import json
import signal
import sys
import time
from typing import Any

import grpc

from greeter.v1.greeter_pb2 import SayHelloRequest
from greeter.v1.greeter_pb2_grpc import GreeterStub

TIMEOUT = 10.0
"""Seconds of a call: longer than gRPC takes to close a silent connection, so that the error shows the cause."""
REPORT_EVERY = 0.1


class Caller:
    """Calls and counts. Times are monotonic, so that they are comparable between the processes of a machine."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = GreeterStub(channel)
        self._sent = 0
        self._done = 0
        self._hosts: dict[str, list[float]] = {}
        self._failures: list[dict[str, Any]] = []
        self._under_way: set[asyncio.Task[None]] = set()

    async def call_steadily(self, interval: float, stop: asyncio.Event) -> None:
        due = time.monotonic()
        while not stop.is_set():
            task = asyncio.create_task(self._call())
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
            due += interval
            await asyncio.sleep(due - time.monotonic())
        await asyncio.gather(*self._under_way)

    async def report_steadily(self) -> None:
        while True:
            await asyncio.sleep(REPORT_EVERY)
            self.report()

    def report(self, *, last: bool = False) -> None:
        failures, self._failures = self._failures, []
        counts = {"sent": self._sent, "done": self._done, "hosts": self._hosts, "failures": failures}
        print(json.dumps(counts | {"last": last}), flush=True)

    async def _call(self) -> None:
        self._sent += 1
        began = time.monotonic()
        try:
            reply = await self._stub.SayHello(SayHelloRequest(name="chaos"), timeout=TIMEOUT)
        except grpc.aio.AioRpcError as error:
            now = time.monotonic()
            failure = {"time": now, "seconds": round(now - began, 3)}
            self._failures.append(failure | {"code": error.code().name, "details": error.details()})
        else:
            now = time.monotonic()
            self._hosts.setdefault(reply.hostname, [now, now])[1] = now
        self._done += 1


async def main(target: str, calls_a_second: float, options: list[tuple[str, int]]) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        caller = Caller(channel)
        reporting = asyncio.create_task(caller.report_steadily())
        await caller.call_steadily(1 / calls_a_second, stop)
        reporting.cancel()
        caller.report(last=True)


if __name__ == "__main__":
    options = [(name, int(number)) for name, _, number in (word.partition("=") for word in sys.argv[3:])]
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), options))
