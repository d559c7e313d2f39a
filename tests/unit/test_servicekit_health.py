"""gRPC health checking with both kinds of servers: many watches, none of which keeps checks or the stop waiting."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from servicekit import health
from servicekit.health import WATCHES, AsyncHealth, ThreadedHealth
from tests.support.waiting import DEADLINE

SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
NEVER = 3600.0
"""A grace that no test may use up."""


class Threaded:
    """A server with threads and its health service."""

    def __init__(self) -> None:
        # Two threads, both of which watches would take if they had none of their own.
        self.server = grpc.server(ThreadPoolExecutor(2))
        self.health: ThreadedHealth = health.add_with_threads(self.server, ["a"])
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()


@pytest.fixture
def threaded() -> Iterator[Threaded]:
    threaded = Threaded()
    yield threaded
    threaded.server.stop(0).wait()


@pytest.fixture
def stub(threaded: Threaded) -> Iterator[HealthStub]:
    with grpc.insecure_channel(f"127.0.0.1:{threaded.port}") as channel:
        yield HealthStub(channel)


def check(stub: HealthStub, service: str = "") -> int:
    return int(stub.Check(HealthCheckRequest(service=service), timeout=DEADLINE).status)


def more_watches_than_threads(stub: HealthStub) -> list[Any]:
    """Opens watches: some are answered, and as many wait for a thread."""
    watches = [stub.Watch(HealthCheckRequest(), timeout=DEADLINE) for _ in range(WATCHES)]
    assert {next(watch).status for watch in watches} == {NOT_SERVING}
    return watches + [stub.Watch(HealthCheckRequest(), timeout=DEADLINE) for _ in range(WATCHES)]


def test_threads_all_services_are_not_serving_until_told(threaded: Threaded, stub: HealthStub) -> None:
    assert [check(stub, service) for service in ("", "a")] == [NOT_SERVING, NOT_SERVING]
    threaded.health.set("a", SERVING)
    assert [check(stub, service) for service in ("", "a")] == [NOT_SERVING, SERVING]
    threaded.health.enter_graceful_shutdown()
    assert check(stub, "a") == NOT_SERVING


def test_threads_a_watch_hears_of_changes(threaded: Threaded, stub: HealthStub) -> None:
    watch = stub.Watch(HealthCheckRequest(), timeout=DEADLINE)
    assert next(watch).status == NOT_SERVING
    threaded.health.set("", SERVING)
    assert next(watch).status == SERVING


def test_threads_watches_keep_no_check_waiting(threaded: Threaded, stub: HealthStub) -> None:
    watches = more_watches_than_threads(stub)
    assert check(stub) == NOT_SERVING
    for watch in watches:
        watch.cancel()


def test_threads_watches_that_come_and_go_leave_room_for_others(threaded: Threaded, stub: HealthStub) -> None:
    for _ in range(10 * WATCHES):
        watch = stub.Watch(HealthCheckRequest(), timeout=DEADLINE)
        assert next(watch).status == NOT_SERVING
        watch.cancel()
    assert check(stub) == NOT_SERVING


def test_threads_open_watches_do_not_use_up_the_grace(threaded: Threaded, stub: HealthStub) -> None:
    more_watches_than_threads(stub)
    threaded.health.end_watches()
    assert threaded.server.stop(NEVER).wait(DEADLINE)


@pytest.fixture
async def server() -> AsyncIterator[grpc.aio.Server]:
    server = grpc.aio.server()
    yield server
    await server.stop(0)


@pytest.fixture
async def servicer(server: grpc.aio.Server) -> AsyncHealth:
    return health.add(server, ["a"])


@pytest.fixture
async def aio_stub(server: grpc.aio.Server, servicer: AsyncHealth) -> AsyncIterator[HealthStub]:
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield HealthStub(channel)


async def test_a_watch_hears_of_changes(servicer: AsyncHealth, aio_stub: HealthStub) -> None:
    watch = aio_stub.Watch(HealthCheckRequest(service="a"), timeout=DEADLINE)
    assert (await watch.read()).status == NOT_SERVING
    servicer.set("a", SERVING)
    assert (await watch.read()).status == SERVING


async def test_open_watches_do_not_use_up_the_grace(
    server: grpc.aio.Server, servicer: AsyncHealth, aio_stub: HealthStub
) -> None:
    watches = [aio_stub.Watch(HealthCheckRequest(), timeout=DEADLINE) for _ in range(50)]
    assert {(await watch.read()).status for watch in watches} == {NOT_SERVING}
    servicer.end_watches()
    async with asyncio.timeout(DEADLINE):
        await server.stop(NEVER)


async def test_a_watch_that_comes_after_the_others_were_ended_ends_too(
    server: grpc.aio.Server, servicer: AsyncHealth, aio_stub: HealthStub
) -> None:
    servicer.end_watches()
    watch = aio_stub.Watch(HealthCheckRequest(), timeout=DEADLINE)
    assert await watch.code() is grpc.StatusCode.OK
    async with asyncio.timeout(DEADLINE):
        await server.stop(NEVER)
