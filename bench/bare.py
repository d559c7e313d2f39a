"""Bare servers, one for each of grpc's ways to serve streams from Python.

They answer from what was prepared, and know nothing of subscriptions, versions or logs: what such a server takes is
what no control plane on top of it can do without. It is why ``xds_server.rpc.events`` exists; whether that still pays
is seen here after an upgrade of grpcio.

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
from xds_server.ads.servicer import MAX_STREAMS, SERVICE
from xds_server.model.service import Endpoint, SocketAddress
from xds_server.resources import cluster, endpoints, listener, route
from xds_server.resources.types import ResourceType
from xds_server.rpc.call import Call
from xds_server.rpc.events import EventTransport

NAME = "service-0.default:50051"
ENDPOINTS = 10
OPTIONS = (
    ("grpc.server.max_pending_requests", MAX_STREAMS),
    ("grpc.server.max_pending_requests_hard_limit", MAX_STREAMS),
)
METHOD = "StreamAggregatedResources"


class Prepared:
    """The four responses, and whom to tell of a change."""

    def __init__(self) -> None:
        resources = {
            ResourceType.LISTENER: listener.build(NAME, NAME),
            ResourceType.ROUTE: route.build(NAME, NAME),
            ResourceType.CLUSTER: cluster.build(NAME),
        }
        self._contents = {kind.value: wire.content(kind, (found,)) for kind, found in resources.items()}
        self.tell: Callable[[], None] = lambda: None
        self.change("10.0.0.0")

    def change(self, first: str) -> None:
        """Make other endpoints."""
        addresses = [first, *(f"10.0.0.{number}" for number in range(1, ENDPOINTS))]
        found = endpoints.build(NAME, tuple(Endpoint("", (SocketAddress(ip, 50051),)) for ip in addresses))
        kind = ResourceType.ENDPOINTS
        self._contents[kind.value] = wire.content(kind, (found,))
        self.tell()

    def response(self, kind: str, nonce: int) -> bytes:
        """Put a response together."""
        return wire.response(self._contents[kind], str(nonce))


def asked(encoded: bytes) -> str:
    """Tell the type that a request asks for; nothing if it only acknowledges."""
    request: Any = discovery_pb2.DiscoveryRequest.FromString(encoded)
    return "" if request.response_nonce else str(request.type_url)


def serve_with_asyncio(prepared: Prepared, port: int) -> None:
    """grpc.aio: two tasks for each stream."""

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        streams: set[asyncio.Queue[str]] = set()

        async def stream(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]) -> None:
            owed: asyncio.Queue[str] = asyncio.Queue()

            async def read() -> None:
                async for request in requests:
                    if kind := asked(request):
                        owed.put_nowait(kind)

            reader = asyncio.create_task(read())
            streams.add(owed)
            nonce = 0
            try:
                while True:
                    kind = await owed.get()
                    nonce += 1
                    await context.write(prepared.response(kind, nonce))
            finally:
                streams.discard(owed)
                reader.cancel()

        def tell_all() -> None:
            for owed in streams:
                owed.put_nowait(ResourceType.ENDPOINTS.value)

        def tell() -> None:
            loop.call_soon_threadsafe(tell_all)

        prepared.tell = tell
        server = grpc.aio.server(options=OPTIONS)
        handler: Any = grpc.stream_stream_rpc_method_handler(stream)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        say_listening()
        await server.wait_for_termination()

    asyncio.run(serve())


def serve_with_threads(prepared: Prepared, port: int) -> None:
    """grpc.server: two threads for each stream."""
    streams: set[queue.SimpleQueue[str]] = set()

    def stream(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        owed: queue.SimpleQueue[str] = queue.SimpleQueue()

        def read() -> None:
            with contextlib.suppress(grpc.RpcError):
                for request in requests:
                    if kind := asked(request):
                        owed.put(kind)

        threading.Thread(target=read, daemon=True).start()
        streams.add(owed)
        context.add_callback(lambda: owed.put(""))
        nonce = 0
        while kind := owed.get():
            nonce += 1
            yield prepared.response(kind, nonce)
        streams.discard(owed)

    def tell() -> None:
        for owed in list(streams):
            owed.put(ResourceType.ENDPOINTS.value)

    prepared.tell = tell
    _serve(grpc.stream_stream_rpc_method_handler(stream), port, threads=MAX_STREAMS)


class Stream:
    """A stream that is served by what happens to it."""

    def __init__(self, prepared: Prepared, streams: set["Stream"], lock: threading.RLock, call: Call) -> None:
        self._prepared = prepared
        self._streams = streams
        self._lock = lock
        self._call = call
        self._owed: list[str] = []
        self._is_writing = False
        self._nonce = 0

    def received(self, message: bytes) -> None:
        """Answer what asks for something."""
        if kind := asked(message):
            with self._lock:
                self.owe(kind)

    def owe(self, kind: str) -> None:
        """Answer as soon as possible."""
        self._owed.append(kind)
        if not self._is_writing:
            self._write()

    def written(self) -> None:
        """Go on."""
        with self._lock:
            self._is_writing = False
            if self._owed:
                self._write()

    def finished(self) -> None:
        """End as the client does."""
        self._call.end(grpc.StatusCode.OK, "")

    def ended(self) -> None:
        """Be forgotten."""
        with self._lock:
            self._streams.discard(self)

    def _write(self) -> None:
        self._is_writing = True
        self._nonce += 1
        self._call.write(self._prepared.response(self._owed.pop(), self._nonce))


def serve_with_events(prepared: Prepared, port: int) -> None:
    """As xds-server does: xds_server.rpc.events."""
    streams: set[Stream] = set()
    lock = threading.RLock()

    def opened(call: Call) -> None:
        stream = Stream(prepared, streams, lock, call)
        with lock:
            streams.add(stream)
        call.serve(stream)

    def tell() -> None:
        with lock:
            for stream in streams:
                stream.owe(ResourceType.ENDPOINTS.value)

    prepared.tell = tell
    _serve(EventTransport().method(opened), port, threads=1)


def _serve(handler: "grpc.RpcMethodHandler[bytes, bytes]", port: int, *, threads: int) -> None:
    server = grpc.server(ThreadPoolExecutor(threads), options=OPTIONS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    say_listening()
    server.wait_for_termination()


def say_listening() -> None:
    """Tell who waits for it."""
    print("listening", flush=True)  # noqa: T201


WAYS = {
    "grpc.aio: two tasks a stream": serve_with_asyncio,
    "grpc.server: two threads a stream": serve_with_threads,
    "rpc.events: neither": serve_with_events,
}


def main(way: str, port: int, control: int) -> None:
    """Serve until the end."""
    prepared = Prepared()

    class Control(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
            prepared.change(query["address"][0])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    controlling = http.server.ThreadingHTTPServer(("127.0.0.1", control), Control)
    threading.Thread(target=controlling.serve_forever, daemon=True).start()
    WAYS[way](prepared, port)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
