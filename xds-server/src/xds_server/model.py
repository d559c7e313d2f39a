"""What the control plane knows about the mesh, free of Kubernetes and of xDS.

Frozen values, compared by content: two equal services give byte-equal resources on every replica.
This module must not know where services come from, nor what becomes of them.
"""

from dataclasses import dataclass
from typing import NamedTuple


class ServiceName(NamedTuple):
    """A service's identity."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.name}.{self.namespace}"


class SocketAddress(NamedTuple):
    """An IP literal in canonical form, and a port from 1 to 65535."""

    ip: str
    port: int

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


class Endpoint(NamedTuple):
    """One backend that may get requests.

    Attributes:
        zone: The zone it runs in; empty if unknown.
        addresses: At least one; a dual-stack pod has one of each family, the preferred one first.
    """

    zone: str
    addresses: tuple[SocketAddress, ...]


@dataclass(frozen=True, slots=True)
class Port:
    """One TCP port of a service and the endpoints behind it.

    Attributes:
        name: The port's name; empty if it has none.
        number: The service's port, which clients name; the endpoints have ports of their own.
        is_grpc: Whether the service says that this port speaks gRPC (or HTTP/2 without TLS).
        endpoints: Sorted, without a duplicate address.
    """

    name: str
    number: int
    is_grpc: bool
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class Service:
    """A service and its TCP ports, in the order in which it declares them."""

    name: ServiceName
    ports: tuple[Port, ...]
