"""LoadReportingService: opens and closes the streams of load reports.

Reports have a lock of their own: however many come, they delay no news of the discovery streams by more than the
interpreter does.
"""

import itertools
import threading
import time
from collections.abc import Callable, Mapping

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

SERVICE = lrs_pb2.DESCRIPTOR.services_by_name["LoadReportingService"].full_name


class LoadServicer:
    """Takes the reports of every client.

    Args:
        transport: How calls are served.
        interval: How often clients are to report, in seconds.
        exists: Whether a port of a service exists; called in any thread.
        limits: How many streams there may be, beside the streams of discovery.
        admission: Who may connect; None: everybody.
    """

    def __init__(
        self,
        transport: Transport,
        interval: float,
        exists: Callable[[PortName], bool],
        *,
        limits: Limits | None = None,
        admission: Admission | None = None,
    ) -> None:
        self._transport = transport
        self._interval = interval
        self._exists = exists
        self._usage = Usage(limits or Limits())
        self._admission = admission
        self._log = ClientLog()
        self._lock = threading.Lock()
        self._loads = Loads(interval)
        self._numbers = itertools.count(1)
        self._streams: dict[int, _Stream] = {}
        self._closing = False

    def handler(self) -> grpc.GenericRpcHandler:
        """The handler to register with a server."""
        return grpc.method_handlers_generic_handler(
            SERVICE, {"StreamLoadStats": self._transport.method(self._open)}
        )

    def rates(self) -> Mapping[Edge, Rate]:
        """Who calls whom at present."""
        with self._lock:
            return self._loads.rates(time.monotonic())

    def totals(self) -> Mapping[PortName, Totals]:
        """The requests to each service that exists, since the server started."""
        with self._lock:
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
                identity = self._admission.identify(call.spiffe_ids) if self._admission else None
                allowance = self._usage.open(str(identity or address(call.peer)))
            except RequestError as error:
                log.warning("stream of load reports refused", reason=str(error))
                call.end(status_of(error), str(error))
                return
            number = next(self._numbers)
            session = Session(self._interval, self._exists, identity)
            stream = _Stream(number, call, session, allowance, self, log)
            self._streams[number] = stream
            metrics.load_streams.set(len(self._streams))
        call.serve(stream)

    def add(self, number: int, session: Session, request: lrs_pb2.LoadStatsRequest) -> None:
        """Adds one report of a stream.

        Raises:
            RequestError: It is refused.
        """
        if session.caller is None:
            raise InvalidRequestError("the first LoadStatsRequest must have the node")
        counts = list(session.counts(request))
        with self._lock:
            self._loads.report(number, session.caller, counts, time.monotonic())

    def forget(self, number: int, allowance: Allowance) -> None:
        """Drops a stream that has ended."""
        with self._lock:
            self._streams.pop(number, None)
            self._loads.forget(number)
            allowance.close()
            metrics.load_streams.set(len(self._streams))


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
        self.call = call
        self._number = number
        self._session = session
        self._allowance = allowance
        self._servicer = servicer
        self._log = log
        self._has_reported = False

    def received(self, message: bytes) -> None:
        """Answers the first request, and adds the reports of the others."""
        try:
            self._session.admit(time.monotonic())
            request = _decode(message)
            if self._session.caller is None:
                self.call.write(self._session.begin(request))
            if request.cluster_stats or self._has_reported:
                self._has_reported = True
                metrics.load_reports.inc()
                self._servicer.add(self._number, self._session, request)
        except RequestError as error:
            reason = str(error)
            self._log.warning(
                "load report refused; the stream is closed", node=self._session.node.id, reason=reason
            )
            self.call.end(status_of(error), reason)

    def written(self) -> None:
        """Does nothing: there is one response."""

    def finished(self) -> None:
        """Ends the stream, as the client does."""
        self.call.end(grpc.StatusCode.OK, "")

    def ended(self) -> None:
        """Gives up what the stream holds."""
        self._servicer.forget(self._number, self._allowance)


def _decode(message: bytes) -> lrs_pb2.LoadStatsRequest:
    try:
        return lrs_pb2.LoadStatsRequest.FromString(message)
    except DecodeError as error:
        raise InvalidRequestError("this is not a LoadStatsRequest") from error
