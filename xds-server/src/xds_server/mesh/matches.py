"""The match of a GRPCRoute's rule, as the model has it, and how specific it is. Pure.

The Kubernetes API checks most of what is checked here; nothing has checked objects that come from files.

https://gateway-api.sigs.k8s.io/reference/spec/#grpcroutematch
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from xds_server.mesh import expressions
from xds_server.mesh.texts import quoted
from xds_server.model.traffic import EVERY_PATH, Header, Match, Path, PathType
from xds_server.objects import gateway

MAX_HEADERS = 16
MAX_NAME = 1024
"""Characters of a service or method."""
MAX_HEADER_NAME = 256
MAX_HEADER_VALUE = 4096

# The patterns of the definition.
_SERVICE = re.compile(r"\.?[A-Za-z_][A-Za-z_0-9]*(\.[A-Za-z_][A-Za-z_0-9]*)*")
_METHOD = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]+")
_ANY_SEGMENT = "[^/]+"

UNSEEN_HEADERS = frozenset({"host", "te", "user-agent"})
"""Set by transports, after a route has been chosen: to route by them would match nothing."""


class UnsupportedError(Exception):
    """A rule has something that gRPC clients can't do or would refuse; the text names the field.

    Attributes:
        reason: For the condition Accepted, if no rule is left.
    """

    def __init__(self, text: str, *, reason: str = "UnsupportedValue") -> None:
        super().__init__(text)
        self.reason = reason


class Specificity(NamedTuple):
    """How specific a match is: the greatest one is tried first.

    That is the order of the specification, without host names. It counts characters whatever the type, so a long
    regular expression precedes a short exact name: unlike HTTPRoute, GRPCRoute has no rule about types
    (GRPCRouteRule.matches, https://gateway-api.sigs.k8s.io/reference/spec/#grpcrouterule).
    """

    service: int
    method: int
    headers: int


def read(match: gateway.RouteMatch, field: str) -> tuple[Match, Specificity]:
    """Reads one match.

    Args:
        match: As it is in the rule.
        field: Where it is, for errors.

    Raises:
        UnsupportedError: Clients can't match that.
    """
    path, service, method = _path(match.method, f"{field}.method")
    headers = tuple(_headers(match.headers or (), f"{field}.headers"))
    return Match(path, headers), Specificity(service, method, len(headers))


def _path(method: gateway.MethodMatch | None, field: str) -> tuple[Path, int, int]:
    """The path to match, and the characters of service and method. An empty text is as good as none."""
    if method is None:
        return EVERY_PATH, 0, 0
    service, name = method.service or "", method.method or ""
    if not (service or name):
        raise UnsupportedError(f"{field}: neither service nor method is set")
    match method.type or "Exact":
        case "Exact":
            path = _exact_path(service, name, field)
        case "RegularExpression":
            path = _regex_path(service, name, field)
        case other:
            raise UnsupportedError(f"{field}.type: {quoted(other)} is unknown")
    return path, len(service), len(name)


def _exact_path(service: str, method: str, field: str) -> Path:
    for part, value, pattern in (("service", service, _SERVICE), ("method", method, _METHOD)):
        if value and (len(value) > MAX_NAME or not pattern.fullmatch(value)):
            raise UnsupportedError(f"{field}.{part}: {quoted(value)} is not the name of a {part}")
    if not service:
        return Path(PathType.REGEX, f"/{_ANY_SEGMENT}/{method}")
    if not method:
        return Path(PathType.PREFIX, f"/{service}/")
    return Path(PathType.EXACT, f"/{service}/{method}")


def _regex_path(service: str, method: str, field: str) -> Path:
    for part, value in (("service", service), ("method", method)):
        # Each by itself too, so that `a)|(b` can't change what is around it.
        if reason := expressions.refusal(value):
            raise UnsupportedError(f"{field}.{part}: {quoted(value)}: {reason}")
    segments = (expressions.grouped(value) if value else _ANY_SEGMENT for value in (service, method))
    path = "/" + "/".join(segments)
    if reason := expressions.refusal(path):
        raise UnsupportedError(f"{field}: {quoted(path)}: {reason}")
    return Path(PathType.REGEX, path)


def _headers(headers: tuple[gateway.HeaderMatch, ...], field: str) -> Iterator[Header]:
    """The headers to match. Of equivalent names the first counts; the others must be ignored."""
    if len(headers) > MAX_HEADERS:
        raise UnsupportedError(f"{field}: {len(headers)} headers; at most {MAX_HEADERS} are allowed")
    seen = set()
    for index, header in enumerate(headers):
        name = header.name.lower()
        if name not in seen:
            seen.add(name)
            yield _header(header, name, f"{field}[{index}]")


def _header(header: gateway.HeaderMatch, name: str, field: str) -> Header:
    if not _HEADER_NAME.fullmatch(name) or len(name) > MAX_HEADER_NAME:
        raise UnsupportedError(f"{field}.name: {quoted(header.name)} is not the name of a header")
    if name.endswith("-bin") or name.startswith("grpc-") or name in UNSEEN_HEADERS:
        # gRFC A28 excludes binary headers; names that begin with grpc- are reserved (PROTOCOL-HTTP2 of gRPC).
        raise UnsupportedError(f"{field}.name: gRPC clients can't route by the header {quoted(name)}")
    value = header.value
    if not value or len(value) > MAX_HEADER_VALUE or not (value.isascii() and value.isprintable()):
        expected = f"1 to {MAX_HEADER_VALUE} printable ASCII characters"
        raise UnsupportedError(f"{field}.value: {quoted(value)} can't be matched; expected {expected}")
    match header.type or "Exact":
        case "Exact":
            return Header(name, value)
        case "RegularExpression":
            whole = expressions.grouped(value)
            if reason := expressions.refusal(value) or expressions.refusal(whole):
                raise UnsupportedError(f"{field}.value: {quoted(value)}: {reason}")
            return Header(name, whole, is_regex=True)
        case other:
            raise UnsupportedError(f"{field}.type: {quoted(other)} is unknown")
