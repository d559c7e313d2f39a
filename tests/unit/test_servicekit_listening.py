"""Listening on addresses, and gRPC health checking on them."""

import socket
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from servicekit import health, listening
from servicekit.errors import AddressError


@pytest.fixture
async def server() -> AsyncIterator[grpc.aio.Server]:
    server = grpc.aio.server(options=listening.SERVER_OPTIONS)
    yield server
    await server.stop(None)


async def test_any_free_port(server: grpc.aio.Server) -> None:
    assert listening.bind(server, "127.0.0.1:0") > 0
    assert listening.bind(server, "localhost:0") > 0
    assert listening.bind(server, "[::]:0") > 0


@pytest.mark.parametrize("host", ["127.0.0.1", "[::]", "0.0.0.0", "localhost"])
async def test_a_port_in_use(server: grpc.aio.Server, host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(AddressError) as error:
            listening.bind(server, f"{host}:{port}")
    assert str(error.value) == (
        f"cannot listen on {host}:{port}: port {port} is in use; "
        f"end the program that has it (`lsof -i :{port}` names it) or take another"
    )


async def test_a_port_of_another_server_is_in_use_too(server: grpc.aio.Server) -> None:
    port = listening.bind(server, "[::]:0")
    second = grpc.aio.server(options=listening.SERVER_OPTIONS)
    with pytest.raises(AddressError, match="is in use"):
        listening.bind(second, f"[::]:{port}")
    await second.stop(None)


@pytest.mark.parametrize(
    "address",
    ["nonsense", "8080", ":50051", "[::]", "::1:0", "[::]:65536", "[::]:", "127.0.0.1:-1", "a:1:2", ""],
)
async def test_what_is_no_address(server: grpc.aio.Server, address: str) -> None:
    with pytest.raises(AddressError) as error:
        listening.bind(server, address)
    assert str(error.value).startswith(f"cannot listen on {address}: must be HOST:PORT, like ")


async def test_an_address_of_another_machine(server: grpc.aio.Server) -> None:
    with pytest.raises(AddressError) as error:
        listening.bind(server, "192.0.2.77:0")
    assert str(error.value).startswith(
        "cannot listen on 192.0.2.77:0: 192.0.2.77 is no address of this machine"
    )


async def test_health_is_not_serving_until_told(server: grpc.aio.Server) -> None:
    servicer = health.add(server, ["greeter.v1.Greeter"])
    port = listening.bind(server, "127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = HealthStub(channel)

        async def statuses() -> list[str]:
            found = [
                await stub.Check(HealthCheckRequest(service=name)) for name in ("", "greeter.v1.Greeter")
            ]
            return [HealthCheckResponse.ServingStatus.Name(each.status) for each in found]

        assert await statuses() == ["NOT_SERVING", "NOT_SERVING"]
        servicer.set("", HealthCheckResponse.SERVING)
        assert await statuses() == ["SERVING", "NOT_SERVING"]
        servicer.set("greeter.v1.Greeter", HealthCheckResponse.SERVING)
        servicer.enter_graceful_shutdown()
        assert await statuses() == ["NOT_SERVING", "NOT_SERVING"]
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.Check(HealthCheckRequest(service="unknown"))
        assert error.value.code() is grpc.StatusCode.NOT_FOUND
