"""proxyless-grpc-lb.dev/v1alpha1: GRPCBackendPolicy, defined by k8s/base/xds-server/crds.

Durations are texts such as ``10s`` and ``1m30s``, as the definition checks them.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec

from xds_server.objects.meta import Struct, Tracked

GROUP = "proxyless-grpc-lb.dev"


class TargetRef(Struct, frozen=True):
    """LocalPolicyTargetReferenceWithSectionName of GEP-713."""

    group: str
    kind: str
    name: str
    section_name: str | None = None


class Retry(Struct, frozen=True):
    """spec.retry."""

    codes: tuple[str, ...] | None = None
    attempts: int | None = None
    backoff: str | None = None


class FailurePercentage(Struct, frozen=True):
    """spec.outlierDetection.failurePercentage."""

    threshold: int | None = None
    minimum_hosts: int | None = None
    request_volume: int | None = None
    enforcement_percent: int | None = None


class SuccessRate(Struct, frozen=True):
    """spec.outlierDetection.successRate."""

    stdev_factor: int | None = None
    minimum_hosts: int | None = None
    request_volume: int | None = None
    enforcement_percent: int | None = None


class OutlierDetection(Struct, frozen=True):
    """spec.outlierDetection."""

    interval: str | None = None
    base_ejection_time: str | None = None
    max_ejection_time: str | None = None
    max_ejection_percent: int | None = None
    failure_percentage: FailurePercentage | None = None
    success_rate: SuccessRate | None = None


class RingHash(Struct, frozen=True):
    """spec.loadBalancing.ringHash."""

    header: str
    minimum_ring_size: int | None = None


class WeightedRoundRobin(Struct, frozen=True):
    """spec.loadBalancing.weightedRoundRobin."""

    blackout_period: str | None = None
    weight_update_period: str | None = None
    out_of_band_reporting_period: str | None = None


class LoadBalancing(Struct, frozen=True):
    """spec.loadBalancing."""

    type: str
    ring_hash: RingHash | None = None
    weighted_round_robin: WeightedRoundRobin | None = None


class Abort(Struct, frozen=True):
    """spec.fault.abort."""

    code: str
    percent: int | None = None


class Delay(Struct, frozen=True):
    """spec.fault.delay."""

    duration: str
    percent: int | None = None


class Fault(Struct, frozen=True):
    """spec.fault."""

    abort: Abort | None = None
    delay: Delay | None = None


class Tls(Struct, frozen=True):
    """spec.tls."""

    mode: str
    subject_alt_names: tuple[str, ...] | None = None
    certificate_provider: str | None = None


class Permission(Struct, frozen=True):
    """One entry of spec.authorization.allow."""

    principals: tuple[str, ...] | None = None
    methods: tuple[str, ...] | None = None


class Authorization(Struct, frozen=True):
    """spec.authorization."""

    allow: tuple[Permission, ...] | None = None


class PolicySpec(Struct, frozen=True):
    """The spec of a GRPCBackendPolicy."""

    target_refs: tuple[TargetRef, ...] | None = None
    timeout: str | None = None
    retry: Retry | None = None
    max_concurrent_requests: int | None = None
    outlier_detection: OutlierDetection | None = None
    load_balancing: LoadBalancing | None = None
    fault: Fault | None = None
    tls: Tls | None = None
    authorization: Authorization | None = None


class GRPCBackendPolicy(Tracked, frozen=True, kw_only=True):
    """How clients treat a Service."""

    spec: PolicySpec


class MalformedPolicy(GRPCBackendPolicy, frozen=True, kw_only=True):
    """A security policy of which nothing can be read but what it targets.

    Attributes:
        reason: What is wrong.
    """

    reason: str


class _Loose(Tracked, frozen=True, kw_only=True):
    spec: dict[str, Any]


def salvage(document: Mapping[str, Any], reason: str) -> MalformedPolicy | None:
    """Reads the targets of a malformed security policy; None if it is none, or if not even that can be read."""
    with suppress(msgspec.ValidationError, RecursionError):
        loose = msgspec.convert(document, _Loose)
        if {"tls", "authorization"} & loose.spec.keys():
            found = loose.spec.get("targetRefs")
            targets = (
                [target for each in found if (target := _target(each))] if isinstance(found, list) else ()
            )
            spec = PolicySpec(target_refs=tuple(targets))
            return MalformedPolicy(metadata=loose.metadata, status=loose.status, spec=spec, reason=reason)
    return None


def _target(found: Any) -> TargetRef | None:
    with suppress(msgspec.ValidationError):
        return msgspec.convert(found, TargetRef)
    return None
