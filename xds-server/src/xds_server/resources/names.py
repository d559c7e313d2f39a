"""The only place where resource names are read.

A client asks for the Listener that its target names, in any of the usual spellings. All other resources have the
canonical name, ``SERVICE.NAMESPACE:PORT``, which is the text of a ``PortName``.
"""

import ipaddress
from collections.abc import Iterator
from typing import NamedTuple

from xds_server.model.service import Port, PortName, Service, ServiceName, SocketAddress
from xds_server.model.tables import SERVICES
from xds_server.model.traffic import MAX_UNAVAILABLE, Unavailable, UnavailableReason
from xds_server.resources.lookup import Lookup

ARTICLE_SUFFIX = "-listener"
"""The demo of 2020 called a service's Listener SERVICE-listener; that name still works."""

SERVER_PREFIX = "grpc/server?xds.resource.listening_address="
"""Of the Listeners of servers, followed by the address that they listen on (gRFC A36): the bootstrap has it as
``server_listener_resource_name_template``."""

MAX_PORT = 65_535
MAX_PORT_DIGITS = 5

_REASONS = {reason.value: reason for reason in UnavailableReason}


class TargetName(NamedTuple):
    """A target's name, split into its parts.

    Attributes:
        service: Its name.
        namespace: Empty if the name has none: then the client's namespace is meant.
        port: A number, a port's name, or empty.
    """

    service: str
    namespace: str
    port: str


def parse(name: str, *, cluster_domain: str) -> TargetName | None:
    """Reads ``SERVICE[.NAMESPACE[.svc[.DOMAIN]]][.][:PORT]``; None if the name has another form.

    Args:
        name: As the client spells it.
        cluster_domain: Such as ``cluster.local``.
    """
    host, _, port = name.partition(":")
    service, *rest = host.removesuffix(".").split(".")
    namespace, suffix = (rest[0], rest[1:]) if rest else ("", [])
    if not service or "" in rest or suffix not in ([], ["svc"], ["svc", *cluster_domain.split(".")]):
        return None
    return TargetName(service, namespace, port)


def parse_canonical(name: str) -> PortName | None:
    """Reads a canonical name; None if the name has another form."""
    host, _, number = name.partition(":")
    service, _, namespace = host.partition(".")
    if not (service and namespace and number.isascii() and number.isdigit()) or "." in namespace:
        return None
    port = PortName(ServiceName(namespace, service), int(number))
    return port if str(port) == name else None


def parse_unavailable(name: str) -> Unavailable | None:
    """Reads the name of a cluster that can't be reached; None if the name has another form."""
    reason, _, detail = name.partition(": ")
    if reason not in _REASONS or not detail or len(name) > MAX_UNAVAILABLE or not name.isprintable():
        return None
    return Unavailable(_REASONS[reason], detail)


def parse_server(name: str) -> SocketAddress | None:
    """Reads ``grpc/server?xds.resource.listening_address=IP:PORT``; None if the name has another form."""
    if not name.startswith(SERVER_PREFIX):
        return None
    host, _, port = name.removeprefix(SERVER_PREFIX).rpartition(":")
    try:
        ip = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
    is_port = port.isascii() and port.isdigit() and len(port) <= MAX_PORT_DIGITS and 0 < int(port) <= MAX_PORT
    return SocketAddress(str(ip), int(port)) if is_port else None


def resolve(target: TargetName, lookup: Lookup) -> PortName | None:
    """The port that a target names for the client of the lookup; None if there is none. An exact service name wins."""
    namespace = target.namespace or lookup.client_namespace
    service = lookup.get(SERVICES, ServiceName(namespace, target.service))
    if service is None and target.service.endswith(ARTICLE_SUFFIX):
        shorter = target.service.removesuffix(ARTICLE_SUFFIX)
        service = lookup.get(SERVICES, ServiceName(namespace, shorter))
    port = _choose(service.ports, target.port) if service else None
    return PortName(service.name, port.number) if service and port else None


def _choose(ports: tuple[Port, ...], wanted: str) -> Port | None:
    """The port with that number or name; without one: the only port, the one named grpc, or the first that is gRPC."""
    if wanted:
        return next((p for p in ports if wanted in (str(p.number), p.name)), None)
    if len(ports) == 1:
        return ports[0]
    named = (p for p in ports if p.name == "grpc")
    return next(named, None) or next((p for p in ports if p.is_grpc), None)


def of_service(service: Service | None) -> Iterator[str]:
    """The canonical names of a service: one for each port."""
    return map(str, service.port_names if service else ())


def exists(port: PortName, lookup: Lookup) -> bool:
    """Whether the service has that port."""
    service = lookup.get(SERVICES, port.service)
    return service is not None and port in service.port_names
