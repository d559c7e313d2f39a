"""Minimal servers, one for each way to serve streams with grpc in Python.

They send prepared responses, without subscriptions, versions or logs, so their cost is a lower bound for any control
plane built the same way. This comparison is the reason for ``xds_server.rpc.events``; repeat it after upgrades of grpcio.

    python -m bench.bare WAY PORT CONTROL_PORT
"""

import asyncio
import contextlib
import http.server
import queue
import sys
import threading
import urllib.parse
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from envoy.service.discovery.v3 import discovery_pb2

from xds_server.ads import wire
from xds_server.ads.limits import Limits
from xds_server.ads.servicer import SERVICE
from xds_server.model.client import Client
from xds_server.model.service import Endpoint, Port, PortName, Service, ServiceName, SocketAddress
from xds_server.model.tables import ENDPOINTS, SERVICES
from xds_server.resources.builders import builder
from xds_server.resources.lookup import Lookup
from xds_server.resources.types import Key, ResourceType
from xds_server.rpc.call import Call
from xds_server.rpc.events import EventTransport

OWNER = ServiceName("default", "service-0")
PORT = PortName(OWNER, 50051)
ENDPOINTS_EACH = 10
MAX_STREAMS = Limits().streams
OPTIONS = (
    ("grpc.server.max_pending_requests", MAX_STREAMS),
    ("grpc.server.max_pending_requests_hard_limit", MAX_STREAMS),
)
METHOD = "StreamAggregatedResources"


class Prepared:
    """The four prepared responses; calls ``notify`` when the endpoints change."""

    def __init__(self) -> None:
        self._contents: dict[str, wire.Content] = {}
        self.notify: Callable[[], None] = lambda: None
        self.change("10.0.0.0")

    def change(self, first: str) -> None:
        """Replaces the endpoints, the first one by the address ``first``, and notifies the server."""
        addresses = [first, *(f"10.0.0.{number}" for number in range(1, ENDPOINTS_EACH))]
        lookup = Lookup(
            {
                SERVICES: {OWNER: Service(OWNER, (Port("grpc", PORT.number, is_grpc=True),))},
                ENDPOINTS: {PORT: tuple(Endpoint("", (SocketAddress(ip, PORT.number),)) for ip in addresses)},
            },
            Client("default"),
        )
        for kind in ResourceType:
            build = builder(Key(kind, str(PORT)), cluster_domain="cluster.local", load_reports=True)
            if build and (resource := build(lookup)):
                self._contents[kind.value] = wire.assemble(kind, (resource,))
        self.notify()

    def response(self, kind: str, nonce: int) -> bytes:
        """Returns an encoded response."""
        return wire.response(self._contents[kind], str(nonce))


def subscribed_type(encoded: bytes) -> str:
    """Returns the type that a request subscribes to, or "" if it is an ACK."""
    request: Any = discovery_pb2.DiscoveryRequest.FromString(encoded)
    return "" if request.response_nonce else str(request.type_url)


def serve_with_asyncio(prepared: Prepared, port: int) -> None:
    """Serves with grpc.aio: two tasks for each stream."""

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        streams: set[asyncio.Queue[str]] = set()

        async def stream(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]) -> None:
            due: asyncio.Queue[str] = asyncio.Queue()

            async def read() -> None:
                async for request in requests:
                    if kind := subscribed_type(request):
                        due.put_nowait(kind)

            reader = asyncio.create_task(read())
            streams.add(due)
            nonce = 0
            try:
                while True:
                    kind = await due.get()
                    nonce += 1
                    await context.write(prepared.response(kind, nonce))
            finally:
                streams.discard(due)
                reader.cancel()

        def notify_streams() -> None:
            for due in streams:
                due.put_nowait(ResourceType.ENDPOINTS.value)

        def notify() -> None:
            loop.call_soon_threadsafe(notify_streams)

        prepared.notify = notify
        server = grpc.aio.server(options=OPTIONS)
        handler: Any = grpc.stream_stream_rpc_method_handler(stream)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        say_listening()
        await server.wait_for_termination()

    asyncio.run(serve())


def serve_with_threads(prepared: Prepared, port: int) -> None:
    """Serves with grpc.server: two threads for each stream."""
    streams: set[queue.SimpleQueue[str]] = set()

    def stream(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        due: queue.SimpleQueue[str] = queue.SimpleQueue()

        def read() -> None:
            with contextlib.suppress(grpc.RpcError):
                for request in requests:
                    if kind := subscribed_type(request):
                        due.put(kind)

        threading.Thread(target=read, daemon=True).start()
        streams.add(due)
        context.add_callback(lambda: due.put(""))
        nonce = 0
        while kind := due.get():
            nonce += 1
            yield prepared.response(kind, nonce)
        streams.discard(due)

    def notify() -> None:
        for due in list(streams):
            due.put(ResourceType.ENDPOINTS.value)

    prepared.notify = notify
    _serve(grpc.stream_stream_rpc_method_handler(stream), port, threads=MAX_STREAMS)


class Stream:
    """A stream that is served by callbacks from grpc's completion queue."""

    def __init__(self, prepared: Prepared, streams: set["Stream"], lock: threading.RLock, call: Call) -> None:
        self._prepared = prepared
        self._streams = streams
        self._lock = lock
        self._call = call
        self._due: list[str] = []
        self._is_writing = False
        self._nonce = 0

    def received(self, message: bytes) -> None:
        """Responds to a subscription; ignores an ACK."""
        if kind := subscribed_type(message):
            with self._lock:
                self.respond(kind)

    def respond(self, kind: str) -> None:
        """Sends a response of this type now, or after the current write; the caller holds the lock."""
        self._due.append(kind)
        if not self._is_writing:
            self._write()

    def written(self) -> None:
        """Sends the next response that is due."""
        with self._lock:
            self._is_writing = False
            if self._due:
                self._write()

    def finished(self) -> None:
        """Ends the call, as the client has ended its side."""
        self._call.end(grpc.StatusCode.OK, "")

    def ended(self) -> None:
        """Removes the stream."""
        with self._lock:
            self._streams.discard(self)

    def _write(self) -> None:
        self._is_writing = True
        self._nonce += 1
        self._call.write(self._prepared.response(self._due.pop(), self._nonce))


def serve_with_events(prepared: Prepared, port: int) -> None:
    """Serves as xds-server does, with xds_server.rpc.events: callbacks, no thread or task for a stream."""
    streams: set[Stream] = set()
    lock = threading.RLock()

    def opened(call: Call) -> None:
        stream = Stream(prepared, streams, lock, call)
        with lock:
            streams.add(stream)
        call.serve(stream)

    def notify() -> None:
        with lock:
            for stream in streams:
                stream.respond(ResourceType.ENDPOINTS.value)

    prepared.notify = notify
    _serve(EventTransport().method(opened), port, threads=1)


def _serve(handler: "grpc.RpcMethodHandler[bytes, bytes]", port: int, *, threads: int) -> None:
    server = grpc.server(ThreadPoolExecutor(threads), options=OPTIONS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    say_listening()
    server.wait_for_termination()


def say_listening() -> None:
    """Prints that the server listens, for the process that started it."""
    print("listening", flush=True)  # noqa: T201


WAYS = {
    "grpc.aio: two tasks a stream": serve_with_asyncio,
    "grpc.server: two threads a stream": serve_with_threads,
    "rpc.events: neither": serve_with_events,
}


def main(way: str, port: int, control: int) -> None:
    """Serves until the process is stopped."""
    prepared = Prepared()

    class Control(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
            prepared.change(query["address"][0])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Suppresses the access log."""

    controlling = http.server.ThreadingHTTPServer(("127.0.0.1", control), Control)
    threading.Thread(target=controlling.serve_forever, daemon=True).start()
    WAYS[way](prepared, port)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
