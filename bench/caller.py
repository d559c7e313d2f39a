"""A gRPC client in Python, which `bench.clients` runs and measures. Prints its results as a line of JSON.

    caller.py throughput KIND CONCURRENCY ROUNDS SECONDS TARGET...
    caller.py first TARGET
    caller.py channels TARGET...

A separate program, because gRPC reads the bootstrap once per process, and to import only what a client imports. Uses
gRPC's asynchronous API, as the demo's clients do.
"""

import asyncio
import json
import re
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import BytesValue

MESSAGE = BytesValue(value=b"x" * 100)
TIMEOUT = 10.0
OPTIONS = [("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]}))]
"""Round robin, as with `xds:///`, so that the channels only differ in the source of their endpoints."""

Once = Callable[[], Awaitable[Any]]
"""Sends a message and waits for the reply."""


async def throughput(kind: str, concurrency: str, rounds: str, seconds: str, *targets: str) -> None:
    """Prints, by target, the replies a second and the microseconds of CPU a reply of each round; targets alternate."""
    channels = [grpc.aio.insecure_channel(target, options=OPTIONS) for target in targets]
    callers = [await _callers(kind, channel, int(concurrency)) for channel in channels]
    for each in callers:
        await _round(each, 1.0)  # warm-up, not counted
    found: list[list[tuple[float, float]]] = [[] for _ in targets]
    for number in range(int(rounds)):
        order = range(len(targets)) if number % 2 == 0 else reversed(range(len(targets)))
        for target in order:
            found[target].append(await _round(callers[target], float(seconds)))
    for channel in channels:
        await channel.close()
    _print(found)


async def first(target: str) -> None:
    """Prints the milliseconds from creating a channel to the first reply."""
    began = time.perf_counter()
    async with grpc.aio.insecure_channel(target, options=OPTIONS) as channel:
        await _call(channel)(MESSAGE, timeout=TIMEOUT)
        _print((time.perf_counter() - began) * 1000)


async def channels(*targets: str) -> None:
    """Prints threads and MiB before and after creating a channel to each target and calling on it once.

    Keeps the channels open until stdin ends, so that the server's metrics can be read meanwhile.
    """
    before = _size()
    found = [grpc.aio.insecure_channel(target, options=OPTIONS) for target in targets]
    for channel in found:
        await _call(channel)(MESSAGE, timeout=TIMEOUT)
    _print({"before": before, "after": _size()})
    sys.stdin.read()
    for channel in found:
        await channel.close()


async def _callers(kind: str, channel: grpc.aio.Channel, count: int) -> list[Once]:
    if kind == "unary":
        call = _call(channel)
        return [lambda: call(MESSAGE, timeout=TIMEOUT)] * count
    return [_exchange(channel) for _ in range(count)]


def _call(channel: grpc.aio.Channel) -> Any:
    return channel.unary_unary("/bench.Echo/Call", BytesValue.SerializeToString, BytesValue.FromString)


def _exchange(channel: grpc.aio.Channel) -> Once:
    """Returns a function that sends a message on a stream, always the same one, and waits for the reply."""
    method = channel.stream_stream("/bench.Echo/Stream", BytesValue.SerializeToString, BytesValue.FromString)
    stream = method()

    async def once() -> None:
        await stream.write(MESSAGE)
        await stream.read()

    return once


async def _round(callers: list[Once], seconds: float) -> tuple[float, float]:
    async def repeat(once: Once) -> int:
        count = 0
        while time.perf_counter() < end:
            await once()
            count += 1
        return count

    began, cpu = time.perf_counter(), time.process_time()
    end = began + seconds
    replies = sum(await asyncio.gather(*map(repeat, callers)))
    return replies / (time.perf_counter() - began), (time.process_time() - cpu) / replies * 1e6


def _print(found: object) -> None:
    sys.stdout.write(f"{json.dumps(found)}\n")
    sys.stdout.flush()


def _size() -> list[float]:
    """Returns the threads and the resident MiB of this process."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    threads, memory = (
        re.findall(rf"^{name}:\s+(\d+)", status, re.MULTILINE) for name in ("Threads", "VmRSS")
    )
    return [int(threads[0]), int(memory[0]) / 1024]


if __name__ == "__main__":
    commands: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {
        "throughput": throughput,
        "first": first,
        "channels": channels,
    }
    asyncio.run(commands[sys.argv[1]](*sys.argv[2:]))
