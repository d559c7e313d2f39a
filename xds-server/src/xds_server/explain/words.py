"""Parts of the model in words, for people. Pure."""

from collections.abc import Iterator

from xds_server.model.traffic import (
    DEFAULT_PROVIDER,
    EVERY_PATH,
    Authorization,
    CallPolicy,
    Fault,
    Match,
    OutlierDetection,
    Path,
    PathType,
    Policy,
    RingHash,
    Tls,
    WeightedRoundRobin,
)

CLOSED = "It is closed: its security policy can't be used, so every request fails."


def of_match(match: Match) -> str:
    """Which requests a rule takes, such as ``method shop.Cart/Add, header x-beta is "yes"``."""
    headers = [
        f'header {header.name} {"matches" if header.is_regex else "is"} "{header.value}"'
        for header in match.headers
    ]
    path = [] if match.path == EVERY_PATH else [_path(match.path)]
    return ", ".join([*path, *headers]) or "every request"


def _path(path: Path) -> str:
    service, _, method = path.value.removeprefix("/").partition("/")
    match path.type:
        case PathType.EXACT:
            return f"method {service}/{method}"
        case PathType.PREFIX:
            return f"service {service}"
        case PathType.REGEX:
            return f"path matches {path.value}"


def of_call(policy: CallPolicy) -> Iterator[str]:
    """Yields what a policy says about requests."""
    if policy.timeout is not None:
        yield f"timeout {seconds(policy.timeout)}" if policy.timeout else "no timeout"
    if policy.retry is not None:
        retry = policy.retry
        yield (
            f"{retry.attempts} {'retry' if retry.attempts == 1 else 'retries'} on {', '.join(retry.codes)}, "
            f"the first after {seconds(retry.backoff)}"
        )
    if policy.fault is not None:
        yield from _fault(policy.fault)


def _fault(fault: Fault) -> Iterator[str]:
    if fault.abort is not None:
        yield f"{fault.abort.percent} % fail with {fault.abort.code} (fault)"
    if fault.delay is not None:
        yield f"{fault.delay.percent} % are delayed by {seconds(fault.delay.duration)} (fault)"


def of_balancing(policy: Policy) -> Iterator[str]:
    """Yields how requests are spread over endpoints, and what bounds them."""
    match policy.load_balancing:
        case RingHash() as ring:
            yield f"ring hash by header {ring.header}"
        case WeightedRoundRobin():
            yield "weighted round robin, by the load that servers report"
        case None:
            yield "round robin"
    if policy.max_concurrent_requests is not None:
        yield f"at most {policy.max_concurrent_requests} concurrent requests of one client"
    if policy.outlier_detection is not None:
        yield _outlier_detection(policy.outlier_detection)


def of_tls(tls: Tls | None) -> str:
    """How connections are encrypted."""
    if tls is None:
        return "Connections are not encrypted"
    kind = "Mutual TLS" if tls.is_mutual else "TLS"
    provider = "" if tls.provider == DEFAULT_PROVIDER else f" by {tls.provider}"
    return f"{kind}{provider}, to servers with a certificate of {' or '.join(tls.subject_alt_names)}"


def of_authorization(authorization: Authorization) -> Iterator[str]:
    """Yields whom servers let in."""
    for permission in authorization.allow:
        methods = f"for {', '.join(permission.methods)}" if permission.methods else "for all methods"
        yield f"servers let in {', '.join(permission.principals)} {methods}"


def of_security(policy: Policy) -> Iterator[str]:
    """Yields how connections are encrypted and whom servers let in, as far as a policy says it."""
    if policy.is_closed:
        yield CLOSED
    if policy.tls is not None:
        yield of_tls(policy.tls)
    if policy.authorization is not None:
        yield from of_authorization(policy.authorization)


def _outlier_detection(found: OutlierDetection) -> str:
    ways = [
        *([f"failures of {found.failure_percentage.threshold} %"] if found.failure_percentage else ()),
        *(["a success rate below that of the others"] if found.success_rate else ()),
    ]
    return (
        f"endpoints are ejected for {' or '.join(ways)}, judged every {seconds(found.interval)}, "
        f"for {seconds(found.base_ejection_time)} at first"
    )


def seconds(number: float) -> str:
    """A duration, such as ``2.5 s`` or ``25 ms``."""
    return f"{number:g} s" if number >= 1 else f"{number * 1000:g} ms"


def count(number: int, noun: str) -> str:
    """A number and its noun, such as ``1 endpoint`` or ``2 endpoints``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
