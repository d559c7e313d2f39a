"""core/v1: Service, and the metadata of Node.

https://kubernetes.io/docs/reference/kubernetes-api/service-resources/service-v1/
https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/node-v1/
"""

from xds_server.objects.meta import IdentifiedMetadata, Object, Struct


class ServicePort(Struct, frozen=True):
    """core/v1 ServicePort."""

    port: int
    name: str | None = None
    protocol: str | None = None
    app_protocol: str | None = None


class ServiceSpec(Struct, frozen=True):
    """core/v1 ServiceSpec."""

    ports: tuple[ServicePort, ...] | None = None
    type: str | None = None
    ip_families: tuple[str, ...] | None = None


class Service(Object, frozen=True):
    """core/v1 Service."""

    metadata: IdentifiedMetadata
    spec: ServiceSpec | None = None


class Node(Object, frozen=True):
    """core/v1 Node, of which the labels alone are read."""
