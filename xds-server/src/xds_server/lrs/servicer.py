"""LoadReportingService: opens and closes the streams of load reports.

Reports have a lock of their own, so that they never hold that of the discovery streams. They are decoded a few at a time:
one by one, each would find the processor's caches cold and cost three times as much.
"""

import itertools
import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import grpc
from envoy.service.load_stats.v3 import lrs_pb2
from google.protobuf.message import DecodeError

from xds_server import metrics
from xds_server.admission import Admission
from xds_server.ads.limits import Allowance, Limits, Usage
from xds_server.ads.stream import status_of
from xds_server.client_log import ClientLog, address
from xds_server.errors import InvalidRequestError, RequestError
from xds_server.lrs.loads import Edge, Loads, Rate, Totals
from xds_server.lrs.session import Session
from xds_server.model.service import PortName
from xds_server.rpc.call import Call, Transport

MAX_WAITING = 32
"""Reports that are decoded at once: a millisecond's work, for which other events wait."""
MAX_WAITING_BYTES = 256 * 1024

SERVICE = lrs_pb2.DESCRIPTOR.services_by_name["LoadReportingService"].full_name


class LoadServicer:
    """Takes the reports of every client.

    Args:
        transport: How calls are served.
        interval: How often clients are to report, in seconds.
        exists: Whether a port of a service exists; called in any thread.
        limits: How many streams there may be, beside the streams of discovery.
        admission: Who may connect; None: everybody.
        first_request_timeout: Seconds after which a stream without a request is ended, when the next one is opened.
    """

    def __init__(  # noqa: PLR0913 - each is one thing
        self,
        transport: Transport,
        interval: float,
        exists: Callable[[PortName], bool],
        *,
        limits: Limits | None = None,
        admission: Admission | None = None,
        first_request_timeout: float = 30.0,
    ) -> None:
        self._transport = transport
        self._first_request_timeout = first_request_timeout
        self._interval = interval
        self._exists = exists
        self._usage = Usage(limits or Limits())
        self._admission = admission
        self._log = ClientLog()
        self._lock = threading.RLock()
        self._loads = Loads(interval)
        self._numbers = itertools.count(1)
        self._streams: dict[int, _Stream] = {}
        self._silent: dict[int, tuple[float, _Stream]] = {}
        self._waiting: list[_Report] = []
        self._waiting_bytes = 0
        self._closing = False

    def handler(self) -> grpc.GenericRpcHandler:
        """The handler to register with a server."""
        return grpc.method_handlers_generic_handler(
            SERVICE, {"StreamLoadStats": self._transport.method(self._open)}
        )

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    def rates(self) -> Mapping[Edge, Rate]:
        """Who calls whom at present."""
        with self._lock:
            self._read_waiting()
            return self._loads.rates(time.monotonic())

    def totals(self) -> Mapping[PortName, Totals]:
        """The requests to each service that exists, since the server started."""
        with self._lock:
            self._read_waiting()
            return self._loads.totals(self._exists)

    def close(self) -> None:
        """Ends every stream; opens no more."""
        with self._lock:
            self._closing = True
            streams = list(self._streams.values())
        for stream in streams:
            stream.call.end(grpc.StatusCode.UNAVAILABLE, "xds-server is shutting down")

    def _open(self, call: Call) -> None:
        log = self._log.bind(peer=call.peer)
        with self._lock:
            if self._closing:
                call.end(grpc.StatusCode.UNAVAILABLE, "xds-server is shutting down")
                return
            try:
                identity = self._admission.identify(call.uris) if self._admission else None
                allowance = self._usage.open(str(identity or address(call.peer)))
            except RequestError as error:
                log.warning("stream of load reports refused", reason=str(error))
                call.end(status_of(error), str(error))
                return
            number = next(self._numbers)
            session = Session(self._interval, self._exists, identity)
            stream = _Stream(number, call, session, allowance, self, log)
            self._end_silent(time.monotonic())
            self._silent[number] = time.monotonic(), stream
            self._streams[number] = stream
            metrics.load_streams.set(len(self._streams))
        call.serve(stream)

    def _end_silent(self, now: float) -> None:
        """Ends streams on which nothing was said for long, the oldest of which come first."""
        while self._silent:
            number, (opened, stream) = next(iter(self._silent.items()))
            is_silent = stream.session.caller is None
            if is_silent and now - opened < self._first_request_timeout:
                return
            del self._silent[number]
            if is_silent:
                stream.call.end(grpc.StatusCode.DEADLINE_EXCEEDED, "no request came")

    def add(self, stream: "_Stream", message: bytes) -> None:
        """Takes one report of a stream, which is read soon."""
        metrics.load_reports.inc()
        with self._lock:
            self._waiting.append(_Report(stream, message, time.monotonic()))
            self._waiting_bytes += len(message)
            if len(self._waiting) >= MAX_WAITING or self._waiting_bytes > MAX_WAITING_BYTES:
                self._read_waiting()

    def forget(self, stream: "_Stream") -> None:
        """Drops a stream that has ended; what it reported last still counts in the sums."""
        with self._lock:
            self._read_waiting()
            self._streams.pop(stream.number, None)
            self._silent.pop(stream.number, None)
            self._loads.forget(stream.number)
            stream.allowance.close()
            metrics.load_streams.set(len(self._streams))

    def _read_waiting(self) -> None:
        """Reads the reports that wait. One that can't be read ends its stream alone."""
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        for stream, message, at in waiting:
            if stream.session.caller is None:
                continue
            try:
                counts = list(stream.session.counts(_decode(message)))
            except RequestError as error:
                stream.refuse(error)
            else:
                self._loads.report(stream.number, stream.session.caller, counts, at)


class _Report(NamedTuple):
    """A report that waits to be read.

    Attributes:
        stream: On which it came.
        message: As it came.
        at: When it came, as of ``time.monotonic``.
    """

    stream: "_Stream"
    message: bytes
    at: float


class _Stream:
    """One stream: the handler of its call."""

    def __init__(  # noqa: PLR0913, PLR0917 - each is one thing
        self,
        number: int,
        call: Call,
        session: Session,
        allowance: Allowance,
        servicer: LoadServicer,
        log: ClientLog,
    ) -> None:
        self.number = number
        self.call = call
        self.session = session
        self.allowance = allowance
        self._servicer = servicer
        self._log = log

    def received(self, message: bytes) -> None:
        """Answers the first request, and passes on what may be a report."""
        try:
            self.session.admit(time.monotonic())
            if self.session.caller is None:
                request = _decode(message)
                self.call.write(self.session.begin(request))
                if not request.cluster_stats:
                    return
        except RequestError as error:
            self.refuse(error)
        else:
            self._servicer.add(self, message)

    def refuse(self, error: RequestError) -> None:
        """Ends the stream because of a request."""
        reason, node = str(error), self.session.node.id
        self._log.warning("load report refused; the stream is closed", node=node, reason=reason)
        self.call.end(status_of(error), reason)

    def written(self) -> None:
        """Does nothing: there is one response."""

    def finished(self) -> None:
        """Ends the stream, as the client does."""
        self.call.end(grpc.StatusCode.OK, "")

    def ended(self) -> None:
        """Gives up what the stream holds."""
        self._servicer.forget(self)


def _decode(message: bytes) -> lrs_pb2.LoadStatsRequest:
    try:
        return lrs_pb2.LoadStatsRequest.FromString(message)
    except DecodeError as error:
        raise InvalidRequestError("this is not a LoadStatsRequest") from error
