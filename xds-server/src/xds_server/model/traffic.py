"""How requests to a service are routed, and how clients treat the service: what routes and policies say.

All durations are in seconds.
"""

import enum
from dataclasses import dataclass
from typing import NamedTuple

from xds_server.model.service import PortName

STATUS_CODES = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE"),
    *("UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
)
"""The names of the status codes, by number: https://grpc.io/docs/guides/status-codes/"""


class PathType(enum.Enum):
    """How the path of a request, ``/SERVICE/METHOD``, is compared."""

    EXACT = "exact"
    PREFIX = "prefix"
    """An empty prefix matches every path."""
    REGEX = "regex"
    """Of the syntax of RE2; the whole path has to match."""


class Path(NamedTuple):
    """Matches the path of a request."""

    type: PathType
    value: str


EVERY_PATH = Path(PathType.PREFIX, "")


class Header(NamedTuple):
    """Matches a header of a request: the whole value, by content or by a regular expression of the syntax of RE2."""

    name: str
    value: str
    is_regex: bool = False


class Match(NamedTuple):
    """Matches requests: all conditions have to hold."""

    path: Path = EVERY_PATH
    headers: tuple[Header, ...] = ()


class UnavailableReason(enum.Enum):
    """Why a backend can't be reached. The words are those of the Gateway API, where it has one."""

    BACKEND_NOT_FOUND = "BackendNotFound"
    INVALID_KIND = "InvalidKind"
    INVALID_POLICY = "InvalidPolicy"
    NO_BACKEND = "NoBackend"


class Unavailable(NamedTuple):
    """A backend that can't be reached: every request to it fails at once with UNAVAILABLE.

    Its text, such as ``BackendNotFound: Service shop/gone``, is the name of a cluster, which clients show. It has at most
    ``MAX_UNAVAILABLE`` characters.

    Attributes:
        reason: What is wrong.
        detail: With what.
    """

    reason: UnavailableReason
    detail: str

    def __str__(self) -> str:
        return f"{self.reason.value}: {self.detail}"


MAX_UNAVAILABLE = 400


class Backend(NamedTuple):
    """Where a share of the requests goes.

    Attributes:
        target: A port of a service, or why there is none.
        weight: Its share, in proportion to the sum of all weights; at least 1.
    """

    target: PortName | Unavailable
    weight: int = 1


class Retry(NamedTuple):
    """How failed requests are tried again.

    Attributes:
        codes: The names of the status codes that are tried again, such as UNAVAILABLE. Sorted.
        attempts: Retries after the first try, 1 to 4.
        backoff: The first pause.
    """

    codes: tuple[str, ...]
    attempts: int = 1
    backoff: float = 0.025


class Abort(NamedTuple):
    """Fails a share of the requests without sending them.

    Attributes:
        code: The name of a status code.
        percent: 0 to 100.
    """

    code: str
    percent: int


class Delay(NamedTuple):
    """Delays a share of the requests.

    Attributes:
        duration: By how much.
        percent: 0 to 100.
    """

    duration: float
    percent: int


class Fault(NamedTuple):
    """Faults that clients inject into their own requests."""

    abort: Abort | None = None
    delay: Delay | None = None


class CallPolicy(NamedTuple):
    """How requests are made; it is part of the routes of the service that is called.

    Attributes:
        timeout: Of a request with its retries; 0 if a route asks for none; None if nothing is said.
        retry: None if nothing is said.
        fault: None if nothing is said.
    """

    timeout: float | None = None
    retry: Retry | None = None
    fault: Fault | None = None

    def over(self, other: "CallPolicy") -> "CallPolicy":
        """This policy, with the fields of the other one where this one says nothing."""
        return CallPolicy(
            self.timeout if self.timeout is not None else other.timeout,
            self.retry if self.retry is not None else other.retry,
            self.fault if self.fault is not None else other.fault,
        )


NO_CALL_POLICY = CallPolicy()


class Rule(NamedTuple):
    """Sends the requests that match to backends.

    Attributes:
        match: Which requests.
        backends: Where they go. Never empty: if there is nothing to send them to, one that is unavailable.
        policy: What the rule's route says about its requests; the service's policy fills in the rest.
    """

    match: Match
    backends: tuple[Backend, ...]
    policy: CallPolicy = NO_CALL_POLICY


class RouteScope(NamedTuple):
    """Where a set of rules replaces the implicit route: on one port, for the clients of one namespace.

    Attributes:
        port: The port.
        namespace: The namespace of the clients; empty for all clients whose namespace has no rules of its own.
    """

    port: PortName
    namespace: str = ""


class FailurePercentage(NamedTuple):
    """Ejects endpoints by the share of their requests that failed."""

    threshold: int = 85
    minimum_hosts: int = 5
    request_volume: int = 50
    enforcement_percent: int = 100


class SuccessRate(NamedTuple):
    """Ejects endpoints whose share of successful requests is below that of the others.

    Attributes:
        stdev_factor: In thousandths of a standard deviation.
    """

    stdev_factor: int = 1900
    minimum_hosts: int = 5
    request_volume: int = 100
    enforcement_percent: int = 100


class OutlierDetection(NamedTuple):
    """Takes endpoints that fail out of the balancing for a while (gRFC A50)."""

    interval: float = 10.0
    base_ejection_time: float = 30.0
    max_ejection_time: float = 300.0
    max_ejection_percent: int = 10
    failure_percentage: FailurePercentage | None = None
    success_rate: SuccessRate | None = None


class RingHash(NamedTuple):
    """Sends requests with an equal header to one endpoint (gRFC A42).

    Attributes:
        header: The header that is hashed, in lower case.
        minimum_ring_size: None for the client's default.
    """

    header: str
    minimum_ring_size: int | None = None


class WeightedRoundRobin(NamedTuple):
    """Balances by the load that servers report (gRFC A58). A period of None is the client's default.

    Attributes:
        blackout_period: How long an endpoint is weighted as the others before its reports count.
        weight_update_period: Between two computations of the weights.
        out_of_band_reporting_period: Between two reports of their own call; None: reports come with responses.
    """

    blackout_period: float | None = None
    weight_update_period: float | None = None
    out_of_band_reporting_period: float | None = None


DEFAULT_PROVIDER = "default"
"""What clients and servers call the place of their certificates and authorities, unless a policy names another."""


class Tls(NamedTuple):
    """Encrypts what clients and servers of a service say to each other (gRFC A29).

    Attributes:
        is_mutual: Whether clients need a certificate, too.
        subject_alt_names: Of a server's certificate; one of them has to be in it.
        provider: What clients and servers call the place of their certificates and authorities, in their bootstraps.
    """

    is_mutual: bool
    subject_alt_names: tuple[str, ...]
    provider: str = DEFAULT_PROVIDER


class Permission(NamedTuple):
    """Allows some clients some methods.

    Attributes:
        principals: SPIFFE ids of clients. One that ends with ``/*`` means all that begin like it.
        methods: Such as ``/shop.Cart/Add``, or ``/shop.Cart/*`` for all of a service; empty: all methods.
    """

    principals: tuple[str, ...]
    methods: tuple[str, ...] = ()


class Authorization(NamedTuple):
    """What clients may call (gRFC A41): what no permission allows is refused by the server."""

    allow: tuple[Permission, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """How clients treat one port of a service, and whom its servers let in.

    Attributes:
        call: Of the service that is called: it takes effect in the port's routes.
        max_concurrent_requests: Of one client to this service; None for the client's default (gRFC A32).
        outlier_detection: None if there is none.
        load_balancing: None for round robin.
        tls: None for plaintext.
        authorization: None if everybody may call everything.
        is_closed: Whether it stands for a policy that can't be used (see ``CLOSED``).
    """

    call: CallPolicy = NO_CALL_POLICY
    max_concurrent_requests: int | None = None
    outlier_detection: OutlierDetection | None = None
    load_balancing: RingHash | WeightedRoundRobin | None = None
    tls: Tls | None = None
    authorization: Authorization | None = None
    is_closed: bool = False

    @property
    def is_secure(self) -> bool:
        """Whether it is a security policy: it has ``tls`` or ``authorization``, or is closed."""
        return self.tls is not None or self.authorization is not None or self.is_closed


CLOSED = Policy(is_closed=True)
"""Of a port whose policy asks for security in a way that can't be used. Without a policy it would be open to all, so no
client reaches it, and its servers refuse every call."""
