"""GRPCBackendPolicies that are accepted and that are refused, by the API server and by xds-server alike."""

from typing import Any

Object = dict[str, Any]

SERVICE: Object = {"group": "", "kind": "Service", "name": "web"}
ROUTE: Object = {"group": "gateway.networking.k8s.io", "kind": "GRPCRoute", "name": "split"}


def policy(
    name: str = "web", *targets: Object, namespace: str = "shop", created: str = "", **spec: Any
) -> Object:
    """Returns a policy, by default for the Service web."""
    return {
        "apiVersion": "proxyless-grpc-lb.dev/v1alpha1",
        "kind": "GRPCBackendPolicy",
        "metadata": {
            "name": name,
            "namespace": namespace,
            **({"creationTimestamp": created} if created else {}),
        },
        "spec": {"targetRefs": list(targets) or [SERVICE], **spec},
    }


def _outlier(**fields: Any) -> Object:
    return {"outlierDetection": {"failurePercentage": {}, **fields}}


def _failure(**fields: Any) -> Object:
    return {"outlierDetection": {"failurePercentage": fields}}


def _success(**fields: Any) -> Object:
    return {"outlierDetection": {"successRate": fields}}


def _ring(**fields: Any) -> Object:
    return {"loadBalancing": {"type": "RingHash", "ringHash": {"header": "x-user", **fields}}}


def _weighted(**fields: Any) -> Object:
    return {"loadBalancing": {"type": "WeightedRoundRobin", "weightedRoundRobin": fields}}


def _retry(**fields: Any) -> Object:
    return {"retry": {"codes": ["UNAVAILABLE"], **fields}}


def _abort(**fields: Any) -> Object:
    return {"fault": {"abort": {"code": "UNAVAILABLE", **fields}}}


def _delay(**fields: Any) -> Object:
    return {"fault": {"delay": {"duration": "1s", **fields}}}


EVERYTHING: Object = {
    "timeout": "10s",
    "retry": {"codes": ["UNAVAILABLE", "CANCELLED"], "attempts": 2, "backoff": "50ms"},
    "maxConcurrentRequests": 1000,
    "outlierDetection": {
        "interval": "5s",
        "baseEjectionTime": "1m",
        "maxEjectionTime": "1h30m",
        "maxEjectionPercent": 50,
        "failurePercentage": {
            "threshold": 80,
            "minimumHosts": 3,
            "requestVolume": 10,
            "enforcementPercent": 90,
        },
        "successRate": {
            "stdevFactor": 2000,
            "minimumHosts": 4,
            "requestVolume": 20,
            "enforcementPercent": 80,
        },
    },
    "loadBalancing": {"type": "RingHash", "ringHash": {"header": "X-User", "minimumRingSize": 2048}},
    "fault": {
        "abort": {"code": "UNAVAILABLE", "percent": 10},
        "delay": {"duration": "100ms", "percent": 20},
    },
    "tls": {
        "mode": "Mutual",
        "subjectAltNames": ["web.shop.svc", "spiffe://cluster.local/ns/shop/sa/web"],
        "certificateProvider": "ours",
    },
    "authorization": {
        "allow": [
            {"principals": ["spiffe://cluster.local/ns/shop/sa/cart"], "methods": ["/shop.Cart/Add"]},
            {"principals": ["spiffe://cluster.local/ns/admin/sa/*"]},
        ]
    },
}


def _tls(**fields: Any) -> Object:
    return {"tls": {"mode": "Mutual", "subjectAltNames": ["web.shop"], **fields}}


def _allow(**fields: Any) -> Object:
    allowed = {"principals": ["spiffe://cluster.local/ns/shop/sa/cart"], **fields}
    return {**_tls(), "authorization": {"allow": [allowed]}}


_SERVICE_PORT = {**SERVICE, "sectionName": "grpc"}
_RULE = {**ROUTE, "sectionName": "canary"}

ACCEPTED: dict[str, Object] = {
    "nothing but a target": policy(),
    "everything": policy(**EVERYTHING),
    "a Service and one of its ports": policy("p", SERVICE, _SERVICE_PORT),
    "a route and one of its rules": policy("p", ROUTE, _RULE),
    "a Service and a route": policy("p", SERVICE, ROUTE, timeout="5s", **_retry(), **_abort()),
    "16 targets": policy("p", *({**SERVICE, "name": f"s{n}"} for n in range(16))),
    "a Service and a route of one name": policy("p", SERVICE, {**ROUTE, "name": "web"}),
    "no timeout for routes": policy("p", ROUTE, _RULE, timeout="0s"),
    "no timeout for routes, in hours": policy("p", ROUTE, timeout="0h0ms"),
    "the shortest timeout": policy(timeout="5000ms"),
    "the longest timeout": policy(timeout="24h"),
    "a timeout of four parts": policy(timeout="1h1m1s1ms"),
    "all codes, most attempts": policy(
        retry={
            "codes": ["CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "RESOURCE_EXHAUSTED", "UNAVAILABLE"],
            "attempts": 4,
            "backoff": "1ms",
        }
    ),
    "one request at a time": policy(maxConcurrentRequests=1),
    "most requests": policy(maxConcurrentRequests=2**31 - 1),
    "percents of 0": policy(**_outlier(maxEjectionPercent=0)),
    "percents of 100": policy(**_outlier(maxEjectionPercent=100, interval="100ms")),
    "success rate alone": policy(**_success()),
    "no failures enforced": policy(**_failure(threshold=0, enforcementPercent=0)),
    "equal ejection times": policy(**_outlier(baseEjectionTime="60s", maxEjectionTime="1m")),
    "the default base": policy(**_outlier(maxEjectionTime="30s")),
    "a base above the default maximum": policy(**_outlier(baseEjectionTime="10m")),
    "round robin": policy(loadBalancing={"type": "RoundRobin"}),
    "the largest ring": policy(**_ring(minimumRingSize=4096)),
    "the smallest ring": policy(**_ring(minimumRingSize=1)),
    "every character of a header": policy(**_ring(header="X_1-a.b")),
    "weighted by default": policy(loadBalancing={"type": "WeightedRoundRobin"}),
    "weighted": policy(
        **_weighted(blackoutPeriod="100ms", weightUpdatePeriod="1s", outOfBandReportingPeriod="24h")
    ),
    "encrypted": policy(**_tls(mode="Simple")),
    "encrypted both ways": policy(
        **_tls(subjectAltNames=["web", "spiffe://a/ns/shop/sa/web"], certificateProvider="our_own.1")
    ),
    "the most names": policy(**_tls(subjectAltNames=[f"web-{n}.shop.svc.cluster.local" for n in range(16)])),
    "one client": policy(**_allow()),
    "all clients of a namespace, one method": policy(
        **_allow(principals=["spiffe://a/ns/shop/sa/*"], methods=["/shop.v1.Cart/Add", "/Health/*"])
    ),
    "every client": policy(**_allow(principals=["spiffe://a/*"])),
    "an abort of all": policy(**_abort()),
    "a delay of none": policy(**_delay(percent=0)),
    "an abort of a code that can't be retried": policy(**_abort(code="UNAUTHENTICATED", percent=100)),
}

REFUSED: dict[str, tuple[Object, str]] = {
    # targets
    "no targetRefs": ({**policy(), "spec": {"timeout": "5s"}}, "spec.targetRefs"),
    "empty targetRefs": ({**policy(), "spec": {"targetRefs": []}}, "spec.targetRefs"),
    "17 targets": (policy("p", *({**SERVICE, "name": f"s{n}"} for n in range(17))), "spec.targetRefs"),
    "a target twice": (policy("p", SERVICE, SERVICE), "spec.targetRefs"),
    "a port twice": (policy("p", _SERVICE_PORT, SERVICE, _SERVICE_PORT), "spec.targetRefs"),
    "a Gateway": (policy("p", {**ROUTE, "kind": "Gateway"}), "spec.targetRefs[0]"),
    "a Service of another group": (policy("p", SERVICE, {**ROUTE, "kind": "Service"}), "spec.targetRefs[1]"),
    "a route of no group": (policy("p", {**ROUTE, "group": ""}), "spec.targetRefs[0]"),
    "a target without a group": (policy("p", {"kind": "Service", "name": "web"}), "group"),
    "a target without a kind": (policy("p", {"group": "", "name": "web"}), "kind"),
    "a target without a name": (policy("p", {"group": "", "kind": "Service"}), "name"),
    "an empty name": (policy("p", {**SERVICE, "name": ""}), "spec.targetRefs[0].name"),
    "a long name": (policy("p", {**SERVICE, "name": "a" * 254}), "spec.targetRefs[0].name"),
    "an empty section": (policy("p", {**SERVICE, "sectionName": ""}), "spec.targetRefs[0].sectionName"),
    "a limit for a route": (policy("p", ROUTE, maxConcurrentRequests=1), "maxConcurrentRequests"),
    "outlier detection for a route": (policy("p", SERVICE, ROUTE, **_outlier()), "outlierDetection"),
    "balancing for a rule": (policy("p", _RULE, loadBalancing={"type": "RoundRobin"}), "loadBalancing"),
    # durations
    "a timeout that is a number": (policy(timeout=10), "timeout"),
    "a timeout without a unit": (policy(timeout="10"), "spec.timeout"),
    "a timeout in days": (policy(timeout="1d"), "spec.timeout"),
    "a timeout in fractions": (policy(timeout="5.5s"), "spec.timeout"),
    "a negative timeout": (policy(timeout="-5s"), "spec.timeout"),
    "an empty timeout": (policy(timeout=""), "spec.timeout"),
    "a timeout with a space": (policy(timeout="5s "), "spec.timeout"),
    "a timeout with a line feed": (policy(timeout="5s\n"), "spec.timeout"),
    "a timeout in other digits": (policy(timeout="\u0665s"), "spec.timeout"),
    "a timeout of six digits": (policy(timeout="100000ms"), "spec.timeout"),
    "a timeout of five parts": (policy(timeout="1s1s1s1s1s"), "spec.timeout"),
    "a short timeout": (policy(timeout="4999ms"), "spec.timeout"),
    "a short timeout of a route": (policy("p", ROUTE, timeout="1ms"), "spec.timeout"),
    "a long timeout": (policy(timeout="24h1ms"), "spec.timeout"),
    "no timeout for a Service": (policy(timeout="0s"), "spec.timeout"),
    "no timeout for a Service and a route": (policy("p", SERVICE, ROUTE, timeout="0s"), "spec.timeout"),
    # retry
    "retry without codes": (policy(retry={"attempts": 1}), "spec.retry.codes"),
    "retry of no codes": (policy(retry={"codes": []}), "spec.retry.codes"),
    "a code that can't be retried": (policy(**_retry(codes=["ABORTED"])), "spec.retry.codes"),
    "a code in lower case": (policy(**_retry(codes=["unavailable"])), "spec.retry.codes"),
    "a code twice": (policy(**_retry(codes=["INTERNAL", "INTERNAL"])), "spec.retry.codes"),
    "no attempts": (policy(**_retry(attempts=0)), "spec.retry.attempts"),
    "five attempts": (policy(**_retry(attempts=5)), "spec.retry.attempts"),
    "attempts as a text": (policy(**_retry(attempts="2")), "attempts"),
    "no pause": (policy(**_retry(backoff="0s")), "spec.retry.backoff"),
    "a long pause": (policy(**_retry(backoff="25h")), "spec.retry.backoff"),
    # circuit breaking
    "no requests": (policy(maxConcurrentRequests=0), "spec.maxConcurrentRequests"),
    "a negative limit": (policy(maxConcurrentRequests=-1), "spec.maxConcurrentRequests"),
    "a limit of 32 bits": (policy(maxConcurrentRequests=2**31), "spec.maxConcurrentRequests"),
    "half a request": (policy(maxConcurrentRequests=1.5), "maxConcurrentRequests"),
    # outlier detection
    "nothing to eject by": (policy(outlierDetection={"interval": "1s"}), "spec.outlierDetection"),
    "an interval of 0": (policy(**_outlier(interval="0s")), "spec.outlierDetection.interval"),
    "a negative interval": (policy(**_outlier(interval="-1s")), "spec.outlierDetection.interval"),
    "a busy interval": (policy(**_outlier(interval="99ms")), "spec.outlierDetection.interval"),
    "an interval of 25 days": (policy(**_outlier(interval="600h")), "spec.outlierDetection.interval"),
    "no ejection": (policy(**_outlier(baseEjectionTime="0s")), "spec.outlierDetection.baseEjectionTime"),
    "a maximum of 0": (policy(**_outlier(maxEjectionTime="0s")), "spec.outlierDetection.maxEjectionTime"),
    "a maximum below the base": (
        policy(**_outlier(baseEjectionTime="60s", maxEjectionTime="59s")),
        "spec.outlierDetection.maxEjectionTime",
    ),
    "a maximum below the default base": (
        policy(**_outlier(maxEjectionTime="29s")),
        "spec.outlierDetection.maxEjectionTime",
    ),
    "101 percent ejected": (
        policy(**_outlier(maxEjectionPercent=101)),
        "spec.outlierDetection.maxEjectionPercent",
    ),
    "-1 percent ejected": (
        policy(**_outlier(maxEjectionPercent=-1)),
        "spec.outlierDetection.maxEjectionPercent",
    ),
    "101 percent failed": (policy(**_failure(threshold=101)), "failurePercentage.threshold"),
    "101 percent of failures enforced": (
        policy(**_failure(enforcementPercent=101)),
        "failurePercentage.enforcementPercent",
    ),
    "failures of no hosts": (policy(**_failure(minimumHosts=0)), "failurePercentage.minimumHosts"),
    "failures of no requests": (policy(**_failure(requestVolume=0)), "failurePercentage.requestVolume"),
    "101 percent of successes enforced": (
        policy(**_success(enforcementPercent=101)),
        "successRate.enforcementPercent",
    ),
    "no deviation": (policy(**_success(stdevFactor=0)), "successRate.stdevFactor"),
    "successes of no hosts": (policy(**_success(minimumHosts=0)), "successRate.minimumHosts"),
    "successes of 32 bits": (policy(**_success(requestVolume=2**31)), "successRate.requestVolume"),
    # load balancing
    "balancing without a type": (policy(loadBalancing={}), "type"),
    "an unknown type": (policy(loadBalancing={"type": "LeastRequest"}), "spec.loadBalancing.type"),
    "a ring without a header": (policy(loadBalancing={"type": "RingHash"}), "spec.loadBalancing.ringHash"),
    "an empty ring": (policy(loadBalancing={"type": "RingHash", "ringHash": {}}), "header"),
    "a ring with round robin": (
        policy(loadBalancing={"type": "RoundRobin", "ringHash": {"header": "x-user"}}),
        "spec.loadBalancing.ringHash",
    ),
    "weights with a ring": (
        policy(
            loadBalancing={"type": "RingHash", "ringHash": {"header": "x-user"}, "weightedRoundRobin": {}}
        ),
        "spec.loadBalancing.weightedRoundRobin",
    ),
    "a binary header": (policy(**_ring(header="x-user-Bin")), "spec.loadBalancing.ringHash.header"),
    "a pseudo header": (policy(**_ring(header=":authority")), "spec.loadBalancing.ringHash.header"),
    "a header of gRPC": (policy(**_ring(header="gRPC-Timeout")), "spec.loadBalancing.ringHash.header"),
    "the user agent": (policy(**_ring(header="User-Agent")), "spec.loadBalancing.ringHash.header"),
    "an empty header": (policy(**_ring(header="")), "spec.loadBalancing.ringHash.header"),
    "a header with a line feed": (policy(**_ring(header="x-user\n")), "spec.loadBalancing.ringHash.header"),
    "a long header": (policy(**_ring(header="x" * 257)), "spec.loadBalancing.ringHash.header"),
    "a header that is not ASCII": (policy(**_ring(header="x-ü")), "spec.loadBalancing.ringHash.header"),
    "a ring of nothing": (policy(**_ring(minimumRingSize=0)), "spec.loadBalancing.ringHash.minimumRingSize"),
    "a ring that clients cap": (
        policy(**_ring(minimumRingSize=4097)),
        "spec.loadBalancing.ringHash.minimumRingSize",
    ),
    "no blackout": (policy(**_weighted(blackoutPeriod="0s")), "weightedRoundRobin.blackoutPeriod"),
    "busy weights": (policy(**_weighted(weightUpdatePeriod="99ms")), "weightedRoundRobin.weightUpdatePeriod"),
    "busy reports": (
        policy(**_weighted(outOfBandReportingPeriod="0s")),
        "weightedRoundRobin.outOfBandReportingPeriod",
    ),
    # security
    "encryption for a route": (policy("p", ROUTE, **_tls()), "tls"),
    "encryption without a mode": (policy(tls={"subjectAltNames": ["web"]}), "mode"),
    "an unknown mode": (policy(**_tls(mode="Strict")), "spec.tls.mode"),
    "no names": (policy(tls={"mode": "Simple"}), "spec.tls.subjectAltNames"),
    "empty names": (policy(**_tls(subjectAltNames=[])), "spec.tls.subjectAltNames"),
    "17 names": (policy(**_tls(subjectAltNames=[f"web-{n}" for n in range(17)])), "spec.tls.subjectAltNames"),
    "a name twice": (policy(**_tls(subjectAltNames=["web", "web"])), "spec.tls.subjectAltNames"),
    "an empty alternative name": (policy(**_tls(subjectAltNames=[""])), "spec.tls.subjectAltNames[0]"),
    "a name with an asterisk": (policy(**_tls(subjectAltNames=["*.shop"])), "spec.tls.subjectAltNames[0]"),
    "a name in upper case": (policy(**_tls(subjectAltNames=["Web"])), "spec.tls.subjectAltNames[0]"),
    "a name with a line feed": (policy(**_tls(subjectAltNames=["web\n"])), "spec.tls.subjectAltNames[0]"),
    "a SPIFFE id of no path": (
        policy(**_tls(subjectAltNames=["spiffe://cluster.local"])),
        "spec.tls.subjectAltNames[0]",
    ),
    "a long alternative name": (policy(**_tls(subjectAltNames=["a" * 254])), "spec.tls.subjectAltNames[0]"),
    "an empty provider": (policy(**_tls(certificateProvider="")), "spec.tls.certificateProvider"),
    "a long provider": (policy(**_tls(certificateProvider="a" * 64)), "spec.tls.certificateProvider"),
    "a provider with a space": (policy(**_tls(certificateProvider="a b")), "spec.tls.certificateProvider"),
    "authorization for a route": (policy("p", ROUTE, **_allow()), "tls"),
    "authorization without encryption": (
        policy(authorization=_allow()["authorization"]),
        "spec.authorization",
    ),
    "authorization without certificates of clients": (
        policy(**{**_allow(), **_tls(mode="Simple")}),
        "spec.authorization",
    ),
    "nothing said about whom": (policy(**{**_tls(), "authorization": {}}), "spec.authorization.allow"),
    "nobody allowed": (policy(**{**_tls(), "authorization": {"allow": []}}), "spec.authorization.allow"),
    "nobody in particular": (
        policy(**{**_tls(), "authorization": {"allow": [{}]}}),
        "spec.authorization.allow[0].principals",
    ),
    "no principals": (policy(**_allow(principals=[])), "spec.authorization.allow[0].principals"),
    "a principal that is no SPIFFE id": (
        policy(**_allow(principals=["cart"])),
        "spec.authorization.allow[0].principals[0]",
    ),
    "an asterisk inside a name": (
        policy(**_allow(principals=["spiffe://cluster.local/ns/shop*"])),
        "spec.authorization.allow[0].principals[0]",
    ),
    "no methods": (policy(**_allow(methods=[])), "spec.authorization.allow[0].methods"),
    "a method without a service": (
        policy(**_allow(methods=["/Add"])),
        "spec.authorization.allow[0].methods[0]",
    ),
    "an asterisk for services": (
        policy(**_allow(methods=["/*/Add"])),
        "spec.authorization.allow[0].methods[0]",
    ),
    # faults
    "no fault": (policy(fault={}), "spec.fault"),
    "an abort without a code": (policy(fault={"abort": {}}), "code"),
    "an abort with success": (policy(**_abort(code="OK")), "spec.fault.abort.code"),
    "101 percent aborted": (policy(**_abort(percent=101)), "spec.fault.abort.percent"),
    "a delay without a duration": (policy(fault={"delay": {"percent": 1}}), "duration"),
    "a delay of 0": (policy(**_delay(duration="0ms")), "spec.fault.delay.duration"),
    "-1 percent delayed": (policy(**_delay(percent=-1)), "spec.fault.delay.percent"),
}
"""Each with a part of the message, which names the field."""
