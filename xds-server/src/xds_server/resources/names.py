"""The only place where a resource's name is made or read.

A client asks for the Listener that its target names, in any of the usual spellings; the rest is shared under one
canonical name, ``SERVICE.NAMESPACE:PORT``.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from xds_server.model import Port, Service, ServiceName

ARTICLE_SUFFIX = "-listener"
"""The demo of 2020 called a service's Listener SERVICE-listener; that keeps working."""

Lookup = Callable[[ServiceName], Service | None]


class Target(NamedTuple):
    """One port of one service: what a target comes down to."""

    service: Service
    port: Port

    @property
    def canonical(self) -> str:
        """The name of its RouteConfiguration, Cluster and ClusterLoadAssignment, and of one of its Listeners."""
        return canonical(self.service.name, self.port)


def canonical(service: ServiceName, port: Port) -> str:
    """``SERVICE.NAMESPACE:PORT``."""
    return f"{service}:{port.number}"


def of_service(service: Service) -> Iterator[str]:
    """The canonical names that a service has: one a port."""
    return (canonical(service.name, port) for port in service.ports)


class Spelling(NamedTuple):
    """A name taken apart.

    Attributes:
        services: Those that may be meant, the likeliest first.
        port: A number, a port's name, or nothing.
    """

    services: tuple[ServiceName, ...]
    port: str


def parse(name: str, *, client_namespace: str, cluster_domain: str) -> Spelling | None:
    """Reads ``SERVICE[.NAMESPACE[.svc[.DOMAIN]]][:PORT]``; None if the name is nothing of the kind.

    Args:
        name: As the client asked for it.
        client_namespace: Where a service without a namespace is looked for.
        cluster_domain: Such as ``cluster.local``.
    """
    host, _, port = name.partition(":")
    labels = host.removesuffix(".").split(".")
    domain = ["svc", *cluster_domain.split(".")]
    if not all(labels) or labels[2:] not in ([], ["svc"], domain):
        return None
    service, namespace = labels[0], labels[1] if len(labels) > 1 else client_namespace
    services = [ServiceName(namespace, service)]
    if service.endswith(ARTICLE_SUFFIX) and service != ARTICLE_SUFFIX:
        services.append(ServiceName(namespace, service.removesuffix(ARTICLE_SUFFIX)))
    return Spelling(tuple(services), port)


def resolve(spelling: Spelling, lookup: Lookup) -> Target | None:
    """The port that is meant, or None if nothing of that name exists; an exact service name wins."""
    service = next(filter(None, map(lookup, spelling.services)), None)
    if service is None:
        return None
    port = _choose(service, spelling.port)
    return Target(service, port) if port else None


def _choose(service: Service, wanted: str) -> Port | None:
    """The port of that number or name; without one: the only port, the one named grpc, or the first that is gRPC."""
    ports = service.ports
    if wanted:
        return next((p for p in ports if wanted in (str(p.number), p.name)), None)
    if len(ports) == 1:
        return ports[0]
    named = (p for p in ports if p.name == "grpc")
    return next(named, None) or next((p for p in ports if p.is_grpc), None)


def scope(name: str, client_namespace: str) -> str:
    """The client's namespace if it makes a difference to what the name means, else nothing."""
    return "" if "." in name.partition(":")[0] else client_namespace


def parse_canonical(name: str) -> tuple[ServiceName, str] | None:
    """Service and port number of a canonical name; None if it is none."""
    host, _, number = name.partition(":")
    service, dot, namespace = host.partition(".")
    if (
        not (service and dot and namespace)
        or "." in namespace
        or not number.isascii()
        or not number.isdigit()
    ):
        return None
    return ServiceName(namespace, service), number
