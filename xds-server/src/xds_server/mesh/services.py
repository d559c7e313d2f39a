"""One service and its endpoints, from its Kubernetes objects. Each object is judged by itself.

Follows what kube-proxy does with the same objects. The rules that are not obvious:

- Slices are joined to the service's ports *by port name*; the port number comes from the slice, so it may differ
  between slices (a named targetPort) and from the service's own.
- ``ready`` nil means ready, ``serving`` nil means the same as ``ready``, ``terminating`` nil means no. A terminating
  endpoint receives nothing new, unless no endpoint of the port is ready: then those that still serve are used
  (KEP-1669).
- An endpoint that is in two slices counts once. The controller may add it to one slice before it removes it from
  another, so that is normal and no problem.
- A dual-stack pod is in a slice of each family under one targetRef: it is one endpoint with two addresses.

https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/
"""

import contextlib
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from xds_server.mesh.problems import Problem
from xds_server.model.service import Endpoint, PodPort, Port, PortName, Service, ServiceName, SocketAddress
from xds_server.objects import core, discovery, meta

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
MAX_PORT = 65_535
GRPC_PROTOCOLS = frozenset({"grpc", "kubernetes.io/h2c"})


Server = PodPort | SocketAddress
"""A server, by its pod or by its address."""


class Assembled(NamedTuple):
    """What the objects of one service make.

    Attributes:
        service: None if there is nothing that a gRPC client could be sent to (ExternalName, no TCP port).
        endpoints: Of each port of the service.
        servers: The ports that lead to each server, by its pod and by its address; ready or not. Empty unless asked for.
        problems: What had to be left out, in no particular order.
    """

    service: Service | None
    endpoints: Mapping[PortName, tuple[Endpoint, ...]]
    servers: Mapping[Server, tuple[PortName, ...]]
    problems: tuple[Problem, ...]


NOTHING = Assembled(None, {}, {}, ())


class _Candidate(NamedTuple):
    """An endpoint of a slice for one port, before the slices are merged."""

    origin: meta.Key
    address: SocketAddress
    family: str
    zone: str
    hints: discovery.Hints | None
    ready: bool
    draining: bool
    target: discovery.TargetRef | None


def owner(item: discovery.EndpointSlice) -> ServiceName | None:
    """The service that a slice belongs to, if its label names one."""
    name = (item.metadata.labels or {}).get(SERVICE_NAME_LABEL)
    return ServiceName(meta.key(item)[0], name) if name else None


def assemble(
    service: core.Service, slices: Iterable[discovery.EndpointSlice], *, with_servers: bool = False
) -> Assembled:
    """Makes a service and the endpoints of its ports; and if wanted, which servers they lead to."""
    namespace, name = where = meta.key(service)
    spec = service.spec or core.ServiceSpec()
    if spec.type == "ExternalName":
        reason = "type ExternalName has no endpoints; it is not served"
        return Assembled(None, {}, {}, (Problem("Service", where, reason),))
    if "." in name or "." in namespace or not (name and namespace):
        reason = "its name or namespace is empty or has a dot, which no target can spell; it is not served"
        return Assembled(None, {}, {}, (Problem("Service", where, reason),))
    problems: list[Problem] = []
    candidates: dict[str, list[_Candidate]] = {}
    for item in sorted(slices, key=meta.key):
        for port_name, candidate in _read(item, problems):
            candidates.setdefault(port_name, []).append(candidate)
    ports = tuple(_service_ports(spec.ports or (), where, problems))
    if not ports:
        return Assembled(None, {}, {}, tuple(problems))
    families = spec.ip_families or ("IPv4", "IPv6")
    assembled = Service(ServiceName(namespace, name), ports)
    endpoints = {
        port_name: _merge(candidates.get(port.name, []), families, problems)
        for port_name, port in zip(assembled.port_names, ports, strict=True)
    }
    servers: dict[Server, tuple[PortName, ...]] = {}
    for target, port in zip(assembled.port_names, ports, strict=True) if with_servers else ():
        for server in _servers(candidates.get(port.name, ()), namespace):
            servers[server] = (*servers.get(server, ()), target)
    return Assembled(assembled, endpoints, servers, tuple(problems))


def _servers(candidates: Iterable[_Candidate], namespace: str) -> set[Server]:
    """The servers of one port. One that uses xDS has to know who it is before it is ready."""
    found: set[Server] = set()
    for candidate in candidates:
        found.add(candidate.address)
        target = candidate.target
        if target is not None and target.kind == "Pod" and target.name:
            found.add(PodPort(namespace, target.name, candidate.address.port))
    return found


def _service_ports(
    ports: Iterable[core.ServicePort], where: meta.Key, problems: list[Problem]
) -> Iterable[Port]:
    """The TCP ports of a service."""
    for port in ports:
        if (port.protocol or "TCP") != "TCP":
            continue
        if not 0 < port.port <= MAX_PORT:
            reason = (
                f"port {port.name or 'without a name'} has the number {port.port}; expected 1 to {MAX_PORT}"
            )
            problems.append(Problem("Service", where, reason))
            continue
        yield Port(port.name or "", port.port, (port.app_protocol or "").lower() in GRPC_PROTOCOLS)


def _read(item: discovery.EndpointSlice, problems: list[Problem]) -> Iterable[tuple[str, _Candidate]]:
    """(port name, endpoint) for each usable pair in one slice."""
    origin = meta.key(item)

    def problem(reason: str) -> None:
        problems.append(Problem("EndpointSlice", origin, reason))

    if item.address_type not in ("IPv4", "IPv6"):
        problem(f"addressType {item.address_type!r} can't be used by gRPC clients; expected IPv4 or IPv6")
        return
    if item.endpoints and not item.ports:
        problem(f"it has no ports, so its {len(item.endpoints)} endpoints can't be used")
    ports = list(_ports(item, problem))
    for endpoint in item.endpoints or ():
        ip = _canonical(endpoint.addresses[0]) if endpoint.addresses else None
        if ip is None:
            problem(
                f"addresses {endpoint.addresses!r} do not start with an IP address; the endpoint is left out"
            )
            continue
        conditions = endpoint.conditions or discovery.Conditions()
        ready = conditions.ready is not False
        serving = ready if conditions.serving is None else conditions.serving
        terminating = bool(conditions.terminating)
        for name, number in ports:
            candidate = _Candidate(
                origin=origin,
                address=SocketAddress(ip, number),
                family=item.address_type,
                zone=endpoint.zone or "",
                hints=endpoint.hints,
                ready=ready and not terminating,
                draining=serving and terminating,
                target=endpoint.target_ref,
            )
            yield name, candidate


def _ports(item: discovery.EndpointSlice, problem: Callable[[str], None]) -> Iterable[tuple[str, int]]:
    """(name, number) of each usable port of a slice."""
    for port in item.ports or ():
        if (port.protocol or "TCP") != "TCP":
            continue
        if port.port is None or not 0 < port.port <= MAX_PORT:
            problem(
                f"port {port.name or 'without a name'} has the number {port.port}; expected 1 to {MAX_PORT}"
            )
            continue
        yield port.name or "", port.port


def _merge(
    candidates: Sequence[_Candidate], families: Sequence[str], problems: list[Problem]
) -> tuple[Endpoint, ...]:
    """The endpoints of one port: those that may be used, each once, sorted."""
    usable = [c for c in candidates if c.ready] or [c for c in candidates if c.draining]
    seen: dict[SocketAddress, meta.Key] = {}
    repeated: set[tuple[meta.Key, SocketAddress]] = set()
    by_target: dict[object, dict[str, _Candidate]] = {}
    for candidate in usable:
        # gRPC rejects a whole assignment that contains one address twice.
        if candidate.address in seen:
            place = candidate.origin, candidate.address
            if seen[candidate.address] == candidate.origin or place in repeated:
                reason = f"{candidate.address} is in the slice more than once; it counts once"
                problems.append(Problem("EndpointSlice", candidate.origin, reason))
            repeated.add(place)
            continue
        seen[candidate.address] = candidate.origin
        target = candidate.target
        identity = (target.kind, target.uid, target.name) if target and target.name else candidate.address
        of_target = by_target.setdefault(identity, {})
        if candidate.family in of_target:
            # A second address of one family is another endpoint, whatever its targetRef says.
            of_target = by_target[candidate.address] = {}
        of_target[candidate.family] = candidate
    order = {family: index for index, family in enumerate(families)}
    return tuple(sorted(_endpoint(found, order) for found in by_target.values()))


def _endpoint(found: Mapping[str, _Candidate], order: Mapping[str, int]) -> Endpoint:
    """One endpoint from its address of each family, the service's first family first."""
    ranked = sorted(found.values(), key=lambda c: order.get(c.family, len(order)))
    first, addresses = ranked[0], tuple(c.address for c in ranked)
    if first.hints is None:
        return Endpoint(first.zone, addresses)
    return Endpoint(first.zone, addresses, _names(first.hints.for_zones), _names(first.hints.for_nodes))


def _names(hints: Iterable[discovery.ForZone | discovery.ForNode] | None) -> tuple[str, ...]:
    return tuple(sorted({hint.name for hint in hints or ()}))


def _canonical(text: str) -> str | None:
    """An IP literal in canonical form, so that equal addresses compare equal; None if the text is not one."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError, ValueError):
            return socket.inet_ntop(family, socket.inet_pton(family, text))
    return None
