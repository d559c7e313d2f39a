"""The greeter's answer."""

import ipaddress

import grpc
import pytest

from greeter.v1.greeter_pb2 import SayHelloRequest
from greeter.v1.greeter_pb2_grpc import GreeterStub, add_GreeterServicer_to_server
from greeting import address
from greeting.server.servicer import Greeter


async def test_the_reply_names_the_host() -> None:
    server = grpc.aio.server()
    add_GreeterServicer_to_server(Greeter("Howdy", "howdy-server-7d79c584f6-xbv4l", "10.244.1.7"), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        reply = await GreeterStub(channel).SayHello(SayHelloRequest(name="gRPC Proxyless LB"))
    await server.stop(None)
    assert reply.message == "Howdy gRPC Proxyless LB from host howdy-server-7d79c584f6-xbv4l (10.244.1.7)"
    assert (reply.hostname, reply.ip) == ("howdy-server-7d79c584f6-xbv4l", "10.244.1.7")


def test_the_own_address_is_an_address() -> None:
    ipaddress.ip_address(address.own_ip())  # raises if it is none


async def test_a_server_fails_as_many_calls_as_it_is_told_to() -> None:
    server = grpc.aio.server()
    add_GreeterServicer_to_server(Greeter("Hello", "faulty", "127.0.0.1", fail_percent=100), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await GreeterStub(channel).SayHello(SayHelloRequest(name="me"))
    await server.stop(None)
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    assert error.value.details() == "faulty fails 100 % of its calls"
