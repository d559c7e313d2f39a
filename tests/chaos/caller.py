"""Calls a target so many times a second, whatever becomes of the calls, and reports what became of them.

    caller.py TARGET CALLS_A_SECOND [CHANNEL_OPTION=NUMBER]...

A program of its own, because gRPC reads the bootstrap once a process. The calls do not wait for each other, so
that one that hangs does not make the others fewer, and not for the connection (`wait_for_ready`), so that an
error is one. On stdout a line of JSON each tenth of a second: what was sent and failed until now, when each
host replied first and last, and each failure as it comes. After SIGTERM it waits for the calls under way, and
says which line is its last.
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
"""Of a call: longer than gRPC takes to give up a silent connection, so that an error tells its cause."""
REPORT_EVERY = 0.1


class Caller:
    """Calls and counts. All times are monotonic, hence comparable between the processes of a machine."""

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
