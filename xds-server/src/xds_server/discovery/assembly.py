"""One service of the model from its Kubernetes objects: pure, and forgiving of each object by itself.

Follows what kube-proxy does with the same objects. The rules that are not obvious:

- Slices are joined to the service's ports *by port name*; the number comes from the slice, so it may differ
  between slices (a named targetPort) and from the service's own.
- ``ready`` nil means ready, ``serving`` nil means as ready, ``terminating`` nil means no. A terminating endpoint
  gets nothing new, unless no endpoint of the port is ready: then those that still serve are used (KEP-1669).
- An endpoint that stands in two slices, as happens while the controller moves it, counts once.
- A dual-stack pod stands in a slice of each family under one targetRef: it is one endpoint with two addresses.

https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/
"""

import contextlib
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from xds_server.discovery import objects
from xds_server.model import Endpoint, Port, Service, ServiceName, SocketAddress

GRPC_PROTOCOLS = frozenset({"grpc", "kubernetes.io/h2c"})


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in an object that can't be used; everything else in it is.

    Attributes:
        kind: Of the object: Service or EndpointSlice.
        key: (namespace, name) of the object.
        reason: What is wrong, and what became of it.
    """

    kind: str
    key: objects.Key
    reason: str


class _Candidate(NamedTuple):
    """An endpoint of a slice for one port, before the slices are merged."""

    origin: objects.Key
    address: SocketAddress
    family: str
    zone: str
    ready: bool
    draining: bool
    target: objects.TargetRef | None


def assemble(
    service: objects.Service, slices: Iterable[objects.EndpointSlice]
) -> tuple[Service | None, list[Problem]]:
    """Makes the service that clients can ask for, and tells what had to be left out.

    Returns:
        The service, or None if it has nothing that a gRPC client could be sent to (ExternalName, no TCP port);
        and the problems, in no particular order.
    """
    namespace, name = where = objects.key(service)
    spec = service.spec or objects.ServiceSpec()
    if spec.type == "ExternalName":
        return None, [Problem("Service", where, "type ExternalName has no endpoints; it is not served")]
    problems: list[Problem] = []
    candidates: dict[str, list[_Candidate]] = {}
    for item in sorted(slices, key=objects.key):
        for port_name, candidate in _read(item, problems):
            candidates.setdefault(port_name, []).append(candidate)
    families = spec.ip_families or ("IPv4", "IPv6")
    ports = tuple(
        Port(
            name=port.name or "",
            number=port.port,
            is_grpc=(port.app_protocol or "").lower() in GRPC_PROTOCOLS,
            endpoints=_merge(candidates.get(port.name or "", ()), families, problems),
        )
        for port in spec.ports or ()
        if (port.protocol or "TCP") == "TCP"
    )
    return (Service(ServiceName(namespace, name), ports) if ports else None), problems


def _read(item: objects.EndpointSlice, problems: list[Problem]) -> Iterable[tuple[str, _Candidate]]:
    """(port name, endpoint) for each usable pair in one slice."""
    origin = objects.key(item)

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
        conditions = endpoint.conditions or objects.Conditions()
        ready = conditions.ready is not False
        serving = ready if conditions.serving is None else conditions.serving
        terminating = bool(conditions.terminating)
        for name, number in ports:
            candidate = _Candidate(
                origin=origin,
                address=SocketAddress(ip, number),
                family=item.address_type,
                zone=endpoint.zone or "",
                ready=ready and not terminating,
                draining=serving and terminating,
                target=endpoint.target_ref,
            )
            yield name, candidate


def _ports(item: objects.EndpointSlice, problem: Callable[[str], None]) -> Iterable[tuple[str, int]]:
    """(name, number) of each usable port of a slice."""
    for port in item.ports or ():
        if (port.protocol or "TCP") != "TCP":
            continue
        if port.port is None or not 0 < port.port < 65536:  # noqa: PLR2004 - the port range of TCP
            problem(f"port {port.name or 'without a name'} has the number {port.port}; expected 1 to 65535")
            continue
        yield port.name or "", port.port


def _merge(
    candidates: Sequence[_Candidate], families: Sequence[str], problems: list[Problem]
) -> tuple[Endpoint, ...]:
    """The endpoints of one port: those that may be used, each once, sorted."""
    usable = [c for c in candidates if c.ready] or [c for c in candidates if c.draining]
    seen: set[SocketAddress] = set()
    by_target: dict[object, dict[str, _Candidate]] = {}
    for candidate in usable:
        # gRPC refuses a whole assignment in which one address stands twice.
        if candidate.address in seen:
            reason = f"{candidate.address} stands in the service's slices more than once; it counts once"
            problems.append(Problem("EndpointSlice", candidate.origin, reason))
            continue
        seen.add(candidate.address)
        target = candidate.target
        identity = (target.kind, target.uid, target.name) if target and target.name else candidate.address
        of_target = by_target.setdefault(identity, {})
        if candidate.family in of_target:
            # A second address of one family is another endpoint, whatever it calls itself.
            of_target = by_target[candidate.address] = {}
        of_target[candidate.family] = candidate
    order = {family: index for index, family in enumerate(families)}
    return tuple(sorted(_endpoint(found, order) for found in by_target.values()))


def _endpoint(found: Mapping[str, _Candidate], order: Mapping[str, int]) -> Endpoint:
    """One endpoint from its address of each family, the service's first family first."""
    ranked = sorted(found.values(), key=lambda c: order.get(c.family, len(order)))
    return Endpoint(zone=ranked[0].zone, addresses=tuple(c.address for c in ranked))


def _canonical(text: str) -> str | None:
    """An IP literal as everybody would write it, so that equal addresses compare equal; None if it is none."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError, ValueError):
            return socket.inet_ntop(family, socket.inet_pton(family, text))
    return None
