"""The spec of a GRPCBackendPolicy as a Policy of the model, or why it is refused. Pure.

This refuses exactly what the definition (k8s/base/xds-server/crds) rejects: files and clusters with an older
definition have no API server that does. The bounds are in both places; tests/support/policies.py has a table for
both. They come from what the xDS parsers of grpc-go, grpc-java, grpc-js and C-core refuse (one refused Cluster leaves
a new client of that language with nothing), and from what a client ignores without a word.
"""

import re
from collections.abc import Collection, Sequence
from typing import TypeVar

from xds_server.errors import RefusedError
from xds_server.mesh import durations
from xds_server.mesh.matches import UNSEEN_HEADERS
from xds_server.model import traffic
from xds_server.objects import gateway, policy

MAX_TARGETS = 16
"""As many as a status has ancestors (GEP-713)."""

RETRY_CODES = ("CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "RESOURCE_EXHAUSTED", "UNAVAILABLE")
"""The status codes that clients can retry (gRFC A44)."""

ABORT_CODES = traffic.STATUS_CODES[1:]
"""All status codes but OK."""

MAX_ATTEMPTS = 4
"""Clients make at most 5 tries (gRFC A6), whatever is sent."""

MIN_TIMEOUT = 5.0
"""C-core ends calls 1 to 2 seconds early."""

MIN_PERIOD = 0.1
"""grpc-go and grpc-java raise shorter periods of weights to this; an interval of 0 would keep a client busy."""

MIN_PAUSE = 0.001
"""A pause of 0 between retries is a NACK; durations have no smaller part."""

MAX_DURATION = 86_400.0
"""A timer of Node that is longer than 24.8 days fires at once."""

MAX_COUNT = 2**31 - 1
"""Fields of 32 bits, which Java reads as signed."""

MAX_RING_SIZE = 4_096
"""Clients refuse more than 8 Mi, and cap what they accept at this unless they are told otherwise (gRFC A42)."""

MAX_NAME = 253

MAX_ALT_NAMES = 16
MAX_PERMISSIONS = 32
MAX_PRINCIPALS = 32
MAX_METHODS = 32

_SPIFFE = r"spiffe://[a-z0-9._-]+(/[A-Za-z0-9._-]+)"
_DNS = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_ALT_NAME = re.compile(rf"{_SPIFFE}+|{_DNS}")
_PRINCIPAL = re.compile(rf"{_SPIFFE}*(/\*)?")
_PROVIDER = re.compile(r"[A-Za-z0-9._-]{1,63}")
_METHOD = re.compile(r"/[A-Za-z_][A-Za-z0-9_.]*/(\*|[A-Za-z_][A-Za-z0-9_]*)")
_HEADER = re.compile(r"[A-Za-z0-9_.-]{1,256}")

D = TypeVar("D", bound=float | None)
N = TypeVar("N", bound=int | None)

TargetKind = tuple[str, str]
"""(group, kind) of a target."""

SERVICE: TargetKind = ("", "Service")
ROUTE: TargetKind = (gateway.GROUP, "GRPCRoute")


def kind(target: policy.TargetRef) -> TargetKind:
    """The kind of a target."""
    return target.group, target.kind


def read(spec: policy.PolicySpec) -> traffic.Policy:
    """Returns what a policy says, with the defaults filled in.

    Raises:
        RefusedError: Some field has a value that the definition rejects.
    """
    targets = spec.target_refs or ()
    _check_targets(targets)
    kinds = {kind(target) for target in targets}
    if ROUTE in kinds:
        for name, value in (
            ("maxConcurrentRequests", spec.max_concurrent_requests),
            ("outlierDetection", spec.outlier_detection),
            ("loadBalancing", spec.load_balancing),
            ("tls", spec.tls),
            ("authorization", spec.authorization),
        ):
            if value is not None:
                raise RefusedError(
                    f"spec.{name} may not be set for a GRPCRoute: use a policy for its backends"
                )
    return traffic.Policy(
        call=traffic.CallPolicy(
            timeout=_timeout(spec.timeout, routes_only=kinds == {ROUTE}),
            retry=_retry(spec.retry),
            fault=_fault(spec.fault),
        ),
        max_concurrent_requests=_integer(
            "spec.maxConcurrentRequests", spec.max_concurrent_requests, None, lowest=1
        ),
        outlier_detection=_outlier_detection(spec.outlier_detection),
        load_balancing=_load_balancing(spec.load_balancing),
        tls=_tls(spec.tls),
        authorization=_authorization(spec.authorization, spec.tls),
    )


def _check_targets(targets: Sequence[policy.TargetRef]) -> None:
    if not 1 <= len(targets) <= MAX_TARGETS:
        raise RefusedError(f"spec.targetRefs has {len(targets)} entries; expected 1 to {MAX_TARGETS}")
    for index, target in enumerate(targets):
        place = f"spec.targetRefs[{index}]"
        if kind(target) not in (SERVICE, ROUTE):
            raise RefusedError(
                f"{place} is of the kind {target.kind!r} in the group {target.group!r}; "
                f"expected Service in '' or GRPCRoute in {gateway.GROUP!r}"
            )
        for name, text in (("name", target.name), ("sectionName", target.section_name)):
            if text is not None and not 1 <= len(text) <= MAX_NAME:
                raise RefusedError(f"{place}.{name} has {len(text)} characters; expected 1 to {MAX_NAME}")
    if len(set(targets)) < len(targets):
        raise RefusedError("spec.targetRefs names one target twice; expected each once")


def _timeout(text: str | None, *, routes_only: bool) -> float | None:
    name = "spec.timeout"
    if text is None:
        return None
    if _duration(name, text) == 0:
        if routes_only:
            return 0.0
        raise RefusedError(
            f"{name} is {text}, which only a policy of GRPCRoutes may say; expected 5s or more"
        )
    return _duration(name, text, lowest=MIN_TIMEOUT)


def _retry(retry: policy.Retry | None) -> traffic.Retry | None:
    if retry is None:
        return None
    codes = retry.codes or ()
    if not codes:
        raise RefusedError(f"spec.retry.codes is empty; expected some of {', '.join(RETRY_CODES)}")
    for code in codes:
        _choice("spec.retry.codes", code, RETRY_CODES)
    if len(set(codes)) < len(codes):
        raise RefusedError("spec.retry.codes names one code twice; expected each once")
    default = traffic.Retry(())
    return traffic.Retry(
        codes=tuple(sorted(codes)),
        attempts=_integer("spec.retry.attempts", retry.attempts, default.attempts, 1, MAX_ATTEMPTS),
        backoff=_optional_duration("spec.retry.backoff", retry.backoff, default.backoff, MIN_PAUSE),
    )


def _fault(fault: policy.Fault | None) -> traffic.Fault | None:
    if fault is None:
        return None
    if fault.abort is None and fault.delay is None:
        raise RefusedError("spec.fault is empty; expected abort or delay")
    abort = delay = None
    if fault.abort is not None:
        _choice("spec.fault.abort.code", fault.abort.code, ABORT_CODES)
        abort = traffic.Abort(
            fault.abort.code, _percent("spec.fault.abort.percent", fault.abort.percent, 100)
        )
    if fault.delay is not None:
        delay = traffic.Delay(
            _duration("spec.fault.delay.duration", fault.delay.duration, lowest=MIN_PAUSE),
            _percent("spec.fault.delay.percent", fault.delay.percent, 100),
        )
    return traffic.Fault(abort, delay)


def _outlier_detection(spec: policy.OutlierDetection | None) -> traffic.OutlierDetection | None:
    if spec is None:
        return None
    place = "spec.outlierDetection"
    if spec.failure_percentage is None and spec.success_rate is None:
        raise RefusedError(f"{place} ejects nothing; expected failurePercentage or successRate")
    default = traffic.OutlierDetection()
    base = _optional_duration(
        f"{place}.baseEjectionTime", spec.base_ejection_time, default.base_ejection_time, MIN_PERIOD
    )
    # The default is the larger of the two, as in Envoy: clients never eject for less than the base.
    longest = _optional_duration(
        f"{place}.maxEjectionTime",
        spec.max_ejection_time,
        max(base, default.max_ejection_time),
        MIN_PERIOD,
    )
    if longest < base:
        raise RefusedError(
            f"{place}.maxEjectionTime is shorter than baseEjectionTime; expected {base:g}s or more"
        )
    return traffic.OutlierDetection(
        interval=_optional_duration(f"{place}.interval", spec.interval, default.interval, MIN_PERIOD),
        base_ejection_time=base,
        max_ejection_time=longest,
        max_ejection_percent=_percent(
            f"{place}.maxEjectionPercent", spec.max_ejection_percent, default.max_ejection_percent
        ),
        failure_percentage=_failure_percentage(spec.failure_percentage),
        success_rate=_success_rate(spec.success_rate),
    )


def _failure_percentage(spec: policy.FailurePercentage | None) -> traffic.FailurePercentage | None:
    if spec is None:
        return None
    place, default = "spec.outlierDetection.failurePercentage", traffic.FailurePercentage()
    return traffic.FailurePercentage(
        threshold=_percent(f"{place}.threshold", spec.threshold, default.threshold),
        minimum_hosts=_integer(f"{place}.minimumHosts", spec.minimum_hosts, default.minimum_hosts, 1),
        request_volume=_integer(f"{place}.requestVolume", spec.request_volume, default.request_volume, 1),
        enforcement_percent=_percent(
            f"{place}.enforcementPercent", spec.enforcement_percent, default.enforcement_percent
        ),
    )


def _success_rate(spec: policy.SuccessRate | None) -> traffic.SuccessRate | None:
    if spec is None:
        return None
    place, default = "spec.outlierDetection.successRate", traffic.SuccessRate()
    return traffic.SuccessRate(
        stdev_factor=_integer(f"{place}.stdevFactor", spec.stdev_factor, default.stdev_factor, 1),
        minimum_hosts=_integer(f"{place}.minimumHosts", spec.minimum_hosts, default.minimum_hosts, 1),
        request_volume=_integer(f"{place}.requestVolume", spec.request_volume, default.request_volume, 1),
        enforcement_percent=_percent(
            f"{place}.enforcementPercent", spec.enforcement_percent, default.enforcement_percent
        ),
    )


def _load_balancing(
    spec: policy.LoadBalancing | None,
) -> traffic.RingHash | traffic.WeightedRoundRobin | None:
    if spec is None:
        return None
    place = "spec.loadBalancing"
    _choice(f"{place}.type", spec.type, ("RoundRobin", "RingHash", "WeightedRoundRobin"))
    if spec.ring_hash is not None and spec.type != "RingHash":
        raise RefusedError(f"{place}.ringHash may be set with type RingHash alone")
    if spec.weighted_round_robin is not None and spec.type != "WeightedRoundRobin":
        raise RefusedError(f"{place}.weightedRoundRobin may be set with type WeightedRoundRobin alone")
    if spec.type == "RoundRobin":
        return None
    if spec.type == "WeightedRoundRobin":
        return _weighted_round_robin(spec.weighted_round_robin or policy.WeightedRoundRobin())
    if spec.ring_hash is None:
        raise RefusedError(f"{place}.ringHash is missing; expected the header that is hashed")
    return traffic.RingHash(
        header=_header(f"{place}.ringHash.header", spec.ring_hash.header),
        minimum_ring_size=_integer(
            f"{place}.ringHash.minimumRingSize", spec.ring_hash.minimum_ring_size, None, 1, MAX_RING_SIZE
        ),
    )


def _weighted_round_robin(spec: policy.WeightedRoundRobin) -> traffic.WeightedRoundRobin:
    place = "spec.loadBalancing.weightedRoundRobin"
    return traffic.WeightedRoundRobin(
        blackout_period=_optional_duration(f"{place}.blackoutPeriod", spec.blackout_period, None, MIN_PERIOD),
        weight_update_period=_optional_duration(
            f"{place}.weightUpdatePeriod", spec.weight_update_period, None, MIN_PERIOD
        ),
        out_of_band_reporting_period=_optional_duration(
            f"{place}.outOfBandReportingPeriod", spec.out_of_band_reporting_period, None, MIN_PERIOD
        ),
    )


def _tls(spec: policy.Tls | None) -> traffic.Tls | None:
    if spec is None:
        return None
    _choice("spec.tls.mode", spec.mode, ("Simple", "Mutual"))
    names = spec.subject_alt_names or ()
    _each("spec.tls.subjectAltNames", names, MAX_ALT_NAMES, _ALT_NAME, "DNS names and SPIFFE ids, each once")
    provider = spec.certificate_provider
    if provider is not None and not _PROVIDER.fullmatch(provider):
        raise RefusedError(
            f"spec.tls.certificateProvider is {provider!r}; expected 1 to 63 letters, digits and . _ -"
        )
    return traffic.Tls(
        spec.mode == "Mutual", names, traffic.DEFAULT_PROVIDER if provider is None else provider
    )


def _authorization(spec: policy.Authorization | None, tls: policy.Tls | None) -> traffic.Authorization | None:
    if spec is None:
        return None
    place = "spec.authorization"
    if tls is None or tls.mode != "Mutual":
        raise RefusedError(f"{place} needs spec.tls.mode Mutual: only certificates say who a client is")
    allow = spec.allow or ()
    if not 1 <= len(allow) <= MAX_PERMISSIONS:
        raise RefusedError(f"{place}.allow has {len(allow)} entries; expected 1 to {MAX_PERMISSIONS}")
    return traffic.Authorization(
        tuple(_permission(f"{place}.allow[{index}]", each) for index, each in enumerate(allow))
    )


def _permission(place: str, spec: policy.Permission) -> traffic.Permission:
    principals, methods = spec.principals or (), spec.methods
    expected = "SPIFFE ids, each once; * may stand behind the last /"
    _each(f"{place}.principals", principals, MAX_PRINCIPALS, _PRINCIPAL, expected)
    if methods is not None:
        expected = "methods like /shop.Cart/Add or /shop.Cart/*, each once"
        _each(f"{place}.methods", methods, MAX_METHODS, _METHOD, expected)
    return traffic.Permission(principals, methods or ())


def _each(name: str, texts: Sequence[str], most: int, pattern: re.Pattern[str], expected: str) -> None:
    """Checks a list of texts that may not be empty."""
    if not 1 <= len(texts) <= most:
        raise RefusedError(f"{name} has {len(texts)} entries; expected 1 to {most}")
    for index, text in enumerate(texts):
        if len(text) > MAX_NAME or not pattern.fullmatch(text):
            raise RefusedError(f"{name}[{index}] is {text[:MAX_NAME]!r}; expected {expected}")
    if len(set(texts)) < len(texts):
        raise RefusedError(f"{name} has one entry twice; expected {expected}")


def _header(name: str, text: str) -> str:
    """Returns the name of a header that every client can hash, in lower case."""
    lower = text.lower()
    if (
        not _HEADER.fullmatch(text)
        or lower.endswith("-bin")
        or lower.startswith("grpc-")
        or lower in UNSEEN_HEADERS
    ):
        raise RefusedError(
            f"{name} is {text!r}, which clients can't hash; expected letters, digits and . _ -, "
            f"no name that ends with -bin or begins with grpc-, and none of {', '.join(sorted(UNSEEN_HEADERS))}"
        )
    return lower


def _choice(name: str, text: str, choices: Collection[str]) -> None:
    if text not in choices:
        raise RefusedError(f"{name} has {text!r}; expected one of {', '.join(choices)}")


def _optional_duration(name: str, text: str | None, default: D, lowest: float) -> float | D:
    return default if text is None else _duration(name, text, lowest=lowest)


def _duration(name: str, text: str, *, lowest: float = 0) -> float:
    try:
        seconds = durations.parse(text)
    except ValueError as error:
        raise RefusedError(f"{name}: {error}") from error
    if not lowest <= seconds <= MAX_DURATION:
        raise RefusedError(f"{name} is {text}; expected {_text(lowest)} to 24h")
    return seconds


def _text(seconds: float) -> str:
    return f"{seconds:g}s" if seconds >= 1 else f"{seconds * 1000:g}ms"


def _percent(name: str, value: int | None, default: int) -> int:
    return _integer(name, value, default, 0, 100)


def _integer(name: str, value: int | None, default: N, lowest: int, highest: int = MAX_COUNT) -> int | N:
    if value is None:
        return default
    if not lowest <= value <= highest:
        raise RefusedError(f"{name} is {value}; expected {lowest} to {highest}")
    return value
