"""The backends of a GRPCRoute's rule. Pure.

https://gateway-api.sigs.k8s.io/reference/spec/#grpcbackendref
"""

from collections.abc import Mapping

from xds_server.mesh.matches import UnsupportedError
from xds_server.mesh.texts import clipped, quoted
from xds_server.model.service import PortName, Service, ServiceName
from xds_server.model.traffic import MAX_UNAVAILABLE, Backend, Unavailable, UnavailableReason
from xds_server.objects import gateway

MAX_BACKENDS = 16
MAX_WEIGHT = 1_000_000
MAX_PORT = 65_535


def service_of(reference: gateway.BackendRef, namespace: str) -> ServiceName | None:
    """The Service that a backend of a route in that namespace refers to; None if it is something else."""
    if reference.group or (reference.kind or "Service") != "Service":
        return None
    return ServiceName(reference.namespace or namespace, reference.name)


def unavailable(reason: UnavailableReason, detail: str) -> Unavailable:
    """Returns a backend that can't be reached, with a name that clients accept."""
    return Unavailable(reason, clipped(detail, MAX_UNAVAILABLE - len(f"{reason.value}: ")))


def resolve(
    reference: gateway.BackendRef, namespace: str, services: Mapping[ServiceName, Service]
) -> PortName | Unavailable:
    """Finds the port that a backend of a route in that namespace refers to.

    It may be in any namespace: a mesh needs no ReferenceGrant (GEP-1294).
    """
    name = service_of(reference, namespace)
    if name is None:
        kind = f"{reference.kind or 'Service'}{'.' if reference.group else ''}{reference.group or ''}"
        return unavailable(
            UnavailableReason.INVALID_KIND, f"{kind} {reference.namespace or namespace}/{reference.name}"
        )
    detail = f"Service {name.namespace}/{name.name}"
    service = services.get(name)
    if service is None:
        return unavailable(UnavailableReason.BACKEND_NOT_FOUND, detail)
    if reference.port is None:
        return unavailable(UnavailableReason.BACKEND_NOT_FOUND, f"{detail}, the port is not set")
    port = PortName(name, reference.port)
    if port not in service.port_names:
        return unavailable(UnavailableReason.BACKEND_NOT_FOUND, f"{detail} port {reference.port}")
    return port


def check(references: tuple[gateway.BackendRef, ...], field: str) -> None:
    """Checks what gRPC clients can't do.

    Raises:
        UnsupportedError: The rule can't be served; the text begins with the field.
    """
    if len(references) > MAX_BACKENDS:
        raise UnsupportedError(f"{field}: {len(references)} backends; at most {MAX_BACKENDS} are allowed")
    for index, reference in enumerate(references):
        check_filters(reference.filters, f"{field}[{index}].filters")
        if reference.weight is not None and not 0 <= reference.weight <= MAX_WEIGHT:
            raise UnsupportedError(f"{field}[{index}].weight: {reference.weight}; expected 0 to {MAX_WEIGHT}")
        if reference.port is not None and not 0 < reference.port <= MAX_PORT:
            raise UnsupportedError(f"{field}[{index}].port: {reference.port}; expected 1 to {MAX_PORT}")


def check_filters(filters: tuple[gateway.Filter, ...] | None, field: str) -> None:
    """Checks that there are none: gRPC clients ignore all of them.

    Raises:
        UnsupportedError: There are some.
    """
    for index, item in enumerate(filters or ()):
        text = f"{field}[{index}]: gRPC clients have no filters such as {quoted(item.type)}"
        raise UnsupportedError(text, reason="IncompatibleFilters")


def share(
    references: tuple[gateway.BackendRef, ...],
    targets: tuple[PortName | Unavailable, ...],
    otherwise: Unavailable,
) -> tuple[Backend, ...]:
    """Returns the backends that receive requests, each once; ``otherwise`` alone if there are none."""
    weights: dict[PortName | Unavailable, int] = {}
    for reference, target in zip(references, targets, strict=True):
        weight = 1 if reference.weight is None else reference.weight
        if weight:
            weights[target] = weights.get(target, 0) + weight
    return tuple(Backend(target, weight) for target, weight in weights.items()) or (Backend(otherwise),)
