"""Greeters in the process of the tests: they count every attempt, and fail, delay or hold calls as a scenario says.

Any unary method is served, with the messages of SayHello. Load is reported as ORCA does it (gRFC A51): in the trailing
metadata of each call, and out of band as a stream.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf.duration_pb2 import Duration
from xds.data.orca.v3.orca_load_report_pb2 import OrcaLoadReport
from xds.service.orca.v3.orca_pb2 import OrcaLoadReportRequest

from greeter.v1.greeter_pb2 import SayHelloRequest, SayHelloResponse
from tests.support import running

_STREAM_LOAD = "/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics"
_MOST_AT_ONCE = 64
"""Calls at once of one backend."""
_PATIENCE = 60.0
"""Seconds after which a held call is released by itself."""


@dataclass(frozen=True)
class Attempt:
    """A call as the server saw it; a retry is an attempt of its own.

    Attributes:
        method: The path.
        metadata: The headers of its request.
        time: When it arrived, in monotonic seconds.
    """

    method: str
    metadata: dict[str, str]
    time: float = field(default_factory=time.monotonic)

    @property
    def previous(self) -> int:
        """How often the client has tried this call before, as it says (gRFC A6)."""
        return int(self.metadata.get("grpc-previous-rpc-attempts", "0"))


class Backend:
    """A server with one port that it keeps when it stops and starts again."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = running.free_port()
        self.utilization: float | None = None
        """The load that it reports, 0 to 1; None reports nothing."""
        self.reports_with_calls = True
        """Whether the load is in the trailing metadata of each call; out of band it is always."""
        self._lock = threading.Lock()
        self._attempts: list[Attempt] = []
        self._behave: Callable[[int], grpc.StatusCode | None] = lambda _number: None
        self._seconds = 0.0
        self._released = threading.Event()
        self._released.set()
        self._load_streams = 0
        self._pool: ThreadPoolExecutor | None = None
        self._server: grpc.Server | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listens on its port."""
        options = (("grpc.so_reuseport", 0),)
        self._pool = ThreadPoolExecutor(_MOST_AT_ONCE)
        self._server = grpc.server(self._pool, [_Anything(self)], options=options)
        assert self._server.add_insecure_port(f"127.0.0.1:{self.port}") == self.port
        self._server.start()

    def stop(self) -> None:
        """Closes its port and connections: new connections are refused."""
        self._released.set()
        if self._server is not None and self._pool is not None:
            self._server.stop(grace=None).wait()
            self._pool.shutdown()
            self._server = None

    def fail(self, code: grpc.StatusCode, every: int = 1) -> None:
        """Fails every n-th attempt from now on."""
        self._behave = lambda number: code if number % every == 0 else None

    def heal(self) -> None:
        """Ends failures and delays, and releases the held calls."""
        self._behave = lambda _number: None
        self._seconds = 0.0
        self._released.set()

    def delay(self, seconds: float) -> None:
        """Delays each reply."""
        self._seconds = seconds

    def hold(self) -> None:
        """Holds each call until heal() or stop()."""
        self._released.clear()

    def take(self) -> list[Attempt]:
        """Returns the attempts since the last time."""
        with self._lock:
            taken, self._attempts = self._attempts, []
        return taken

    @property
    def seen(self) -> int:
        """The number of attempts since the last take()."""
        return len(self._attempts)

    @property
    def load_streams(self) -> int:
        """The number of clients that have asked for its load out of band."""
        return self._load_streams

    def reply(self, method: str, context: grpc.ServicerContext) -> SayHelloResponse:
        """Answers a call."""
        attempt = Attempt(method, {key: str(value) for key, value in context.invocation_metadata()})
        with self._lock:
            self._attempts.append(attempt)
            code = self._behave(len(self._attempts))
        if self._seconds:
            time.sleep(self._seconds)  # the backend was told to be slow
        self._released.wait(_PATIENCE)
        if self.utilization is not None and self.reports_with_calls:
            report = self._load().SerializeToString()
            context.set_trailing_metadata((("endpoint-load-metrics-bin", report),))
        if code is not None:
            context.abort(code, f"{self.name} fails as it was told")
        return SayHelloResponse(message="Hello", hostname=self.name, ip="127.0.0.1")

    def stream_load(
        self, request: OrcaLoadReportRequest, context: grpc.ServicerContext
    ) -> Iterator[OrcaLoadReport]:
        """Reports its load again and again."""
        self._load_streams += 1
        ended = threading.Event()
        if not context.add_callback(ended.set):
            return
        period: Duration = request.report_interval
        while not ended.is_set():
            yield self._load()
            ended.wait(max(period.ToTimedelta().total_seconds(), 0.1))

    def _load(self) -> OrcaLoadReport:
        return OrcaLoadReport(
            rps_fractional=100.0,
            application_utilization=self.utilization or 0.0,
            cpu_utilization=self.utilization or 0.0,
        )


class _Anything(grpc.GenericRpcHandler):
    """Serves every method."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any]":
        method = details.method
        if method == _STREAM_LOAD:
            return grpc.unary_stream_rpc_method_handler(
                self._backend.stream_load,
                request_deserializer=OrcaLoadReportRequest.FromString,
                response_serializer=OrcaLoadReport.SerializeToString,
            )
        return grpc.unary_unary_rpc_method_handler(
            lambda _request, context: self._backend.reply(method, context),
            request_deserializer=SayHelloRequest.FromString,
            response_serializer=SayHelloResponse.SerializeToString,
        )
