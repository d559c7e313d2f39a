"""Services, their ports, and the endpoints behind each port."""

from dataclasses import dataclass
from typing import NamedTuple


class ServiceName(NamedTuple):
    """A service's identity."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.name}.{self.namespace}"


class PortName(NamedTuple):
    """One port of one service, by the service's port number. Its text is its canonical name."""

    service: ServiceName
    number: int

    def __str__(self) -> str:
        return f"{self.service}:{self.number}"


class SocketAddress(NamedTuple):
    """An IP literal in canonical form, and a port from 1 to 65535."""

    ip: str
    port: int

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


class PodPort(NamedTuple):
    """A port on which a pod listens."""

    namespace: str
    pod: str
    port: int


class Endpoint(NamedTuple):
    """One backend that may receive requests.

    Attributes:
        zone: The zone it runs in; empty if unknown.
        addresses: At least one; a dual-stack pod has one of each family, the preferred one first.
        for_zones: The zones whose clients should prefer it; sorted, empty if there is no such hint.
        for_nodes: The nodes whose clients should prefer it; likewise.
    """

    zone: str
    addresses: tuple[SocketAddress, ...]
    for_zones: tuple[str, ...] = ()
    for_nodes: tuple[str, ...] = ()


class Port(NamedTuple):
    """One TCP port of a service.

    Attributes:
        name: The port's name; empty if it has none.
        number: The service's port, which clients name; endpoints have port numbers of their own.
        is_grpc: Whether the service declares that this port speaks gRPC (or HTTP/2 without TLS).
    """

    name: str
    number: int
    is_grpc: bool


@dataclass(frozen=True, slots=True)
class Service:
    """A service and its TCP ports, in the order in which it declares them.

    Its endpoints are not part of it: they change far more often, and other resources are made of them.
    """

    name: ServiceName
    ports: tuple[Port, ...]

    @property
    def port_names(self) -> tuple[PortName, ...]:
        """One name for each port."""
        return tuple(PortName(self.name, port.number) for port in self.ports)
