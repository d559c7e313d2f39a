"""discovery.k8s.io/v1: EndpointSlice.

https://kubernetes.io/docs/reference/kubernetes-api/service-resources/endpoint-slice-v1/
"""

from xds_server.objects.meta import Object, Struct


class Conditions(Struct, frozen=True):
    """discovery.k8s.io/v1 EndpointConditions: nil means unknown."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class TargetRef(Struct, frozen=True):
    """core/v1 ObjectReference: the pod behind an endpoint."""

    kind: str | None = None
    namespace: str | None = None
    name: str | None = None
    uid: str | None = None


class ForZone(Struct, frozen=True):
    """discovery.k8s.io/v1 ForZone."""

    name: str


class ForNode(Struct, frozen=True):
    """discovery.k8s.io/v1 ForNode."""

    name: str


class Hints(Struct, frozen=True):
    """discovery.k8s.io/v1 EndpointHints: whose clients should prefer an endpoint."""

    for_zones: tuple[ForZone, ...] | None = None
    for_nodes: tuple[ForNode, ...] | None = None


class SliceEndpoint(Struct, frozen=True):
    """discovery.k8s.io/v1 Endpoint. Its addresses are fungible: consumers may use the first alone."""

    addresses: tuple[str, ...] | None = None
    conditions: Conditions | None = None
    target_ref: TargetRef | None = None
    zone: str | None = None
    hints: Hints | None = None


class SlicePort(Struct, frozen=True):
    """discovery.k8s.io/v1 EndpointPort."""

    name: str | None = None
    protocol: str | None = None
    port: int | None = None


class EndpointSlice(Object, frozen=True, kw_only=True):
    """discovery.k8s.io/v1 EndpointSlice."""

    address_type: str
    endpoints: tuple[SliceEndpoint, ...] | None = None
    ports: tuple[SlicePort, ...] | None = None
