"""One stream of load reports, without I/O: requests in, one response out, and what the reports say.

A report is believed as far as it concerns services that exist, and its numbers are cut to what can be: the sums of a
service are what its clients say.
"""

from collections.abc import Callable, Iterator
from typing import Any

from envoy.service.load_stats.v3 import lrs_pb2
from google.protobuf.duration_pb2 import Duration

from xds_server.ads import node as nodes
from xds_server.errors import ExhaustedError, InvalidRequestError
from xds_server.lrs.loads import Counts
from xds_server.model import workload
from xds_server.model.identity import Identity
from xds_server.model.service import PortName
from xds_server.model.workload import Workload
from xds_server.resources.names import parse_canonical

MAX_CLUSTERS = 1_000
"""In one report; more are not read."""
MAX_LOCALITIES = 2_000
"""Of all clusters of one report together; more are not read."""
MAX_RATE = 10**6
"""Requests a second in one report about one locality; more are cut to this."""
MAX_COUNTED_SECONDS = 60.0
MAX_ZONES = 16
"""Of one service in one report; requests to others count as to no zone."""
MAX_ZONE_LENGTH = 63
"""Of a value of a label, as zones are."""
MIN_SECONDS, MAX_SECONDS = 0.1, 3_600.0
"""What a report may say it covers; other numbers are cut to these."""
REPORTS_IN_INTERVAL = 4
"""Reports that a client may send in the long run; it is asked for one."""
BURST = 20
"""Reports that may come at once: after a pause of the server, those of the meantime do."""


class Session:
    """The state of one stream.

    Args:
        interval: How often the client is to report, in seconds.
        exists: Whether a port of a service exists.
        identity: Who the client is, if its certificate says so.

    Attributes:
        node: The client as it described itself in the first request.
        caller: Its workload; None before the first request.
    """

    def __init__(
        self, interval: float, exists: Callable[[PortName], bool], identity: Identity | None = None
    ) -> None:
        self.node = nodes.UNKNOWN
        self.caller: Workload | None = None
        self._interval = interval
        self._exists = exists
        self._identity = identity
        self._last = float("-inf")
        self._allowed = float(BURST)

    def begin(self, request: Any) -> bytes:
        """Applies the first request, which tells who the client is; returns the response, which says what to report.

        It may be a report as well: grpc-js sends what it has gathered when it opens a stream again.

        Raises:
            InvalidRequestError: It breaks a limit.
            ForbiddenError: The client claims to be somebody else than its certificate says.
        """
        self.node = nodes.read(request.node, self._identity)
        self.caller = workload.of_client(self.node.id, self.node.client.namespace)
        seconds, rest = divmod(self._interval, 1)
        response = lrs_pb2.LoadStatsResponse(
            send_all_clusters=True,
            load_reporting_interval=Duration(seconds=int(seconds), nanos=round(rest * 1e9)),
        )
        encoded: bytes = response.SerializeToString()
        return encoded

    def admit(self, now: float) -> None:
        """Checks how often reports come, before they cost anything.

        Raises:
            ExhaustedError: They come much more often than they were asked for.
        """
        gained = (now - self._last) * REPORTS_IN_INTERVAL / self._interval
        self._allowed, self._last = min(self._allowed + gained, BURST) - 1, now
        if self._allowed < 0:
            raise ExhaustedError(
                f"load reports come much more often than every {self._interval:g} s, as they were asked for"
            )

    def counts(self, request: Any) -> Iterator[Counts]:
        """Yields what a report says about services that exist.

        Raises:
            InvalidRequestError: The report came before the client said who it is.
        """
        if self.caller is None:
            raise InvalidRequestError("the first LoadStatsRequest must have the node")
        left = MAX_LOCALITIES
        for cluster in request.cluster_stats[:MAX_CLUSTERS]:
            service = parse_canonical(cluster.cluster_name)
            if service is None or not self._exists(service):
                continue
            seconds = self._seconds(cluster)
            localities = cluster.upstream_locality_stats[:left]
            left -= len(localities)
            most = int(MAX_RATE * max(1.0, min(seconds, MAX_COUNTED_SECONDS)))
            zones: dict[str, None] = {}
            for locality in localities:
                zone = locality.locality.zone[:MAX_ZONE_LENGTH]
                if len(zones) < MAX_ZONES:
                    zones[zone] = None
                yield Counts(
                    service,
                    zone if zone in zones else "",
                    min(locality.total_successful_requests, most),
                    min(locality.total_error_requests, most),
                    0,
                    min(locality.total_requests_in_progress, most),
                    seconds,
                )
            if cluster.total_dropped_requests:
                yield Counts(service, "", 0, 0, min(cluster.total_dropped_requests, most), 0, seconds)

    def _seconds(self, cluster: Any) -> float:
        """How long a report covers; the interval if it does not say so."""
        duration = cluster.load_report_interval
        seconds = duration.seconds + duration.nanos / 1e9
        return min(max(seconds, MIN_SECONDS), MAX_SECONDS) if seconds > 0 else self._interval
