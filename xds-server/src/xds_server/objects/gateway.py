"""gateway.networking.k8s.io/v1: GRPCRoute.

https://gateway-api.sigs.k8s.io/reference/spec/#grpcroute
"""

from typing import Any, ClassVar

from xds_server.objects.meta import Struct, Tracked

GROUP = "gateway.networking.k8s.io"


class ParentReference(Struct, frozen=True):
    """ParentReference: what a route attaches to. Without group and kind it is a Gateway."""

    name: str
    group: str | None = None
    kind: str | None = None
    namespace: str | None = None
    section_name: str | None = None
    port: int | None = None


class MethodMatch(Struct, frozen=True):
    """GRPCMethodMatch."""

    type: str | None = None
    service: str | None = None
    method: str | None = None


class HeaderMatch(Struct, frozen=True):
    """GRPCHeaderMatch."""

    name: str
    value: str
    type: str | None = None


class RouteMatch(Struct, frozen=True):
    """GRPCRouteMatch."""

    method: MethodMatch | None = None
    headers: tuple[HeaderMatch, ...] | None = None


class Filter(Struct, frozen=True):
    """GRPCRouteFilter, of which the type is enough to refuse it."""

    unread: ClassVar[frozenset[str]] = frozenset(
        {"requestHeaderModifier", "responseHeaderModifier", "requestMirror", "extensionRef"}
    )

    type: str


class BackendRef(Struct, frozen=True):
    """GRPCBackendRef: without group and kind it is a Service."""

    name: str
    group: str | None = None
    kind: str | None = None
    namespace: str | None = None
    port: int | None = None
    weight: int | None = None
    filters: tuple[Filter, ...] | None = None


class RouteRule(Struct, frozen=True):
    """GRPCRouteRule."""

    name: str | None = None
    matches: tuple[RouteMatch, ...] | None = None
    filters: tuple[Filter, ...] | None = None
    backend_refs: tuple[BackendRef, ...] | None = None
    session_persistence: Any = None


class RouteSpec(Struct, frozen=True):
    """GRPCRouteSpec. Host names are not read: they say nothing in a mesh (GEP-1294)."""

    unread: ClassVar[frozenset[str]] = frozenset({"hostnames", "useDefaultGateways"})

    parent_refs: tuple[ParentReference, ...] | None = None
    rules: tuple[RouteRule, ...] | None = None


class GRPCRoute(Tracked, frozen=True, kw_only=True):
    """GRPCRoute."""

    spec: RouteSpec
