"""Misbehaving clients of xds-server: each kind is a context manager, and the clients misbehave while it is open."""

import contextlib
import random
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence

from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest

from tests.chaos import http2
from tests.chaos.crowd import Crowd
from tests.chaos.followers import TYPES
from tests.chaos.load import Client
from tests.chaos.mesh import BIG, NAME, TARGET, bootstrap, streams
from tests.support.ads import AdsClient
from tests.support.waiting import wait_until
from tests.support.xds_server import XdsServer

NOT_READING = 50
MANY_NAMES = 10_000
STORM = 1_000
STOPPED = 4


@contextlib.contextmanager
def never_reading(server: XdsServer) -> Iterator[None]:
    """Subscribes to a large service that changes constantly, and never reads."""
    with connections(server.address, NOT_READING) as clients:
        for number, client in enumerate(clients):
            client.sendall(http2.opening(takes_everything=number % 2 == 0) + subscription(BIG))
        wait_until("all to be subscribed", lambda: streams(server) >= NOT_READING)
        yield


@contextlib.contextmanager
def reading_now_and_then(server: XdsServer) -> Iterator[None]:
    """Subscribes to the same, and reads a byte every half second."""
    with connections(server.address, NOT_READING) as clients:
        for client in clients:
            client.sendall(http2.opening(takes_everything=True) + subscription(BIG))
        wait_until("all to be subscribed", lambda: streams(server) >= NOT_READING)

        def read_a_byte(_: random.Random) -> None:
            for client in clients:
                assert client.recv(1)

        with repeatedly(read_a_byte, every=0.5):
            yield


@contextlib.contextmanager
def silent(server: XdsServer) -> Iterator[None]:
    """Connects and sends no request: some send no HTTP/2 at all, some open a stream without a request."""
    beginnings = (b"", http2.PREFACE[:7], http2.opening(takes_everything=True), stream_without_request())
    with connections(server.address, 200) as clients:
        for number, client in enumerate(clients):
            client.sendall(beginnings[number % len(beginnings)])
        yield


@contextlib.contextmanager
def stopped(server: XdsServer) -> Iterator[None]:
    """Stops some calling clients (SIGSTOP). After SIGCONT they receive the changes that they missed."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(bootstrap(server.address), TARGET)) for _ in range(STOPPED)]
        wait_until("replies to all clients", lambda: all(client.hosts for client in clients))
        before = [set(client.hosts) for client in clients]
        for client in clients:
            client.send(signal.SIGSTOP)
        try:
            yield
        finally:
            for client in clients:
                client.send(signal.SIGCONT)
        wait_until(
            "replies of the new pod to all clients",
            lambda: all(known < set(client.hosts) for known, client in zip(before, clients, strict=True)),
        )


@contextlib.contextmanager
def storming(server: XdsServer) -> Iterator[None]:
    """Runs a thousand clients that all drop their connections and reconnect at the same moment, repeatedly."""
    with Crowd(server.address, STORM, NAME) as crowd:
        crowd.wait_until_answered()
        with repeatedly(lambda _: crowd.scatter(), every=2):
            yield


@contextlib.contextmanager
def subscribing_to_many_names(server: XdsServer) -> Iterator[None]:
    """Subscribes to 10,000 names, one of which exists, for Listeners and for endpoints."""
    with AdsClient(server.address) as client:
        others = [f"service-{number}.default:50051" for number in range(MANY_NAMES - 1)]
        for kind in (Listener, ClusterLoadAssignment):
            client.ask_for_many(kind, NAME, others)
        yield
        assert client.addresses(NAME)


@contextlib.contextmanager
def sending_invalid_input(server: XdsServer) -> Iterator[None]:
    """Sends random bytes, corrupted HTTP/2, and invalid requests, repeatedly."""

    def send(chance: random.Random) -> None:
        noise = chance.randbytes(chance.randrange(1, 2_000))
        garbled = bytearray(http2.opening(takes_everything=True) + subscription(NAME))
        for _ in range(8):
            garbled[chance.randrange(len(garbled))] = chance.randrange(256)
        sent = chance.choice(
            [
                noise,
                bytes(garbled),
                http2.opening(takes_everything=True) + noise,
                http2.opening(takes_everything=True) + http2.ads_stream(noise),
                http2.opening(takes_everything=True)
                + http2.ads_stream(DiscoveryRequest().SerializeToString()),
            ]
        )
        # The server may close the connection at any moment.
        with contextlib.suppress(OSError), socket.create_connection(_split(server.address), 1) as client:
            client.sendall(sent)
            client.recv(1)

    with repeatedly(send, every=0.005):
        yield
    assert server.warnings("request refused", "not a DiscoveryRequest"), "some input reached the xDS handler"


KINDS: dict[str, Callable[[XdsServer], contextlib.AbstractContextManager[None]]] = {
    f"{NOT_READING} clients that never read": never_reading,
    f"{NOT_READING} clients that read a byte now and then": reading_now_and_then,
    "200 connections that send nothing": silent,
    f"{STOPPED} clients stopped (SIGSTOP)": stopped,
    f"storms of {STORM:,} reconnects": storming,
    f"a client that subscribes to {MANY_NAMES:,} names": subscribing_to_many_names,
    "continuous invalid input: random bytes, invalid requests": sending_invalid_input,
}


def subscription(name: str) -> bytes:
    """Returns the bytes of a stream that subscribes to a name as all four types."""
    requests = [DiscoveryRequest(type_url=kind, resource_names=[name]) for kind in TYPES]
    return http2.ads_stream(*(request.SerializeToString() for request in requests))


def stream_without_request() -> bytes:
    return http2.opening(takes_everything=True) + http2.ads_stream()


@contextlib.contextmanager
def connections(address: str, count: int) -> Iterator[Sequence[socket.socket]]:
    """Opens connections with the smallest receive buffer that the kernel allows."""
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(count):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            client.settimeout(30)
            client.connect(_split(address))
            clients.append(client)
        yield clients


@contextlib.contextmanager
def repeatedly(step: Callable[[random.Random], None], *, every: float) -> Iterator[None]:
    """Calls `step` repeatedly in a thread, and fails if it raises."""
    chance = random.Random(1)
    stop = threading.Event()
    errors: list[Exception] = []

    def run() -> None:
        try:
            while not stop.wait(every):
                step(chance)
        except Exception as error:  # noqa: BLE001 - raised below
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert errors == []


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)
