"""What the status of a GRPCRoute says, and the problems that it has. Pure.

https://gateway-api.sigs.k8s.io/reference/spec/#routeparentstatus
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from xds_server.mesh.grpc_route import Parent, RouteReading, dropped_text, parent_service
from xds_server.mesh.problems import Problem
from xds_server.mesh.statuses import Condition, Status, StatusEntry
from xds_server.mesh.texts import clipped
from xds_server.model.service import PortName
from xds_server.model.traffic import Unavailable
from xds_server.objects.gateway import ParentReference
from xds_server.objects.kinds import GRPC_ROUTE
from xds_server.objects.meta import Key

MAX_MESSAGE = 4096
"""Characters of a condition's message; the API allows 32,768."""
OVER_BUDGET = "PortBudgetExceeded"
"""The reason of Accepted=False for a route that is too large beside the others. The specification has no reason for it,
and allows further ones."""

Excesses = Mapping[PortName, str]
"""The ports that do not take a route because their budget is used up, each with what exceeds it."""


class RouteState(NamedTuple):
    """What is to be said about one route.

    Attributes:
        status: None if it could not be found out.
        problems: What is not served as it is written.
    """

    status: Status | None = None
    problems: tuple[Problem, ...] = ()


UNKNOWN = RouteState()


def state(key: Key, reading: RouteReading, excesses: Excesses) -> RouteState:
    """Returns what is to be said about a route."""
    entries = tuple(
        StatusEntry(_ref(parent.reference), tuple(_conditions(key, reading, parent, excesses)))
        for parent in reading.parents
    )
    texts = [*reading.remarks, *_parent_problems(key, reading, entries)]
    if len(excesses) < len(reading.ports):
        texts += [f"no rule is served on {port}: {excess}" for port, excess in sorted(excesses.items())]
    texts += [f"dropped rule {drop.rule}: {drop.text}" for drop in reading.dropped]
    texts += [f"{field}: {target}" for field, target in reading.unresolved or ()]
    problems = tuple(Problem(GRPC_ROUTE.name, key, clipped(text, MAX_MESSAGE)) for text in texts)
    return RouteState(Status(reading.generation, entries), problems)


def idle(key: Key, reading: RouteReading | None, status: Status | None, rule: str) -> str:
    """Returns why a policy for a route, or for its rule of that name (empty: all rules), has no effect; empty if it has."""
    label = f"GRPCRoute {key[1]}"
    if reading is None or status is None:
        return f"{label} is not served"
    if not status.entries:
        return f"no parent of {label} is a Service"
    accepted = [entry.conditions[0] for entry in status.entries]
    if not any(condition.status for condition in accepted):
        return f"{label} is not accepted ({accepted[0].reason})"
    if rule and rule not in reading.names:
        text = "; ".join(drop.text for drop in reading.dropped if drop.name == rule)
        return f"rule {rule} of {label} is dropped: {text}"
    return ""


def _conditions(key: Key, reading: RouteReading, parent: Parent, excesses: Excesses) -> Iterator[Condition]:
    accepted = _accepted(key, reading, parent, excesses)
    yield accepted
    # Left out if it was not found out: to the Kubernetes API that means Unknown.
    if reading.unresolved is not None:
        yield _resolved(reading.unresolved)
    if accepted.status:
        texts = [dropped_text(reading.dropped)] if reading.dropped else []
        texts += [
            f"Dropped Rule all rules on port {port.number}: {excesses[port]}"
            for port in sorted(parent.ports)
            if port in excesses
        ]
        if texts:
            yield _condition("PartiallyInvalid", "UnsupportedValue", ". ".join(texts))


def _accepted(key: Key, reading: RouteReading, parent: Parent, excesses: Excesses) -> Condition:
    """Whether a parent accepts the route: it does if one of its ports does, as a Gateway does if one listener does."""
    if not parent.ports:
        text = f"{_parent_text(key, parent.reference)}: there is no such Service, or it has no such TCP port"
        return _condition("Accepted", "NoMatchingParent", text, status=False)
    if reading.refusal is not None:
        return _condition("Accepted", *reading.refusal, status=False)
    if all(port in excesses for port in parent.ports):
        return _condition("Accepted", OVER_BUDGET, excesses[min(parent.ports)], status=False)
    return _condition("Accepted", "Accepted", "The rules replace the implicit route.")


def _resolved(unresolved: tuple[tuple[str, Unavailable], ...]) -> Condition:
    if not unresolved:
        return _condition("ResolvedRefs", "ResolvedRefs", "All backends exist.")
    text = "; ".join(f"{field}: {target}" for field, target in unresolved)
    return _condition("ResolvedRefs", unresolved[0][1].reason.value, text, status=False)


def _parent_problems(key: Key, reading: RouteReading, entries: tuple[StatusEntry, ...]) -> Iterator[str]:
    for parent, entry in zip(reading.parents, entries, strict=True):
        accepted = entry.conditions[0]
        if not accepted.status:
            yield f"it is not accepted by {_parent_text(key, parent.reference)}: {accepted.message}"


def _parent_text(key: Key, parent: ParentReference) -> str:
    service = parent_service(key, parent)
    text = f"Service {service.namespace}/{service.name}"
    if parent.section_name:
        text += f" port {parent.section_name}"
    if parent.port is not None:
        text += f" port {parent.port}"
    return text


def _condition(name: str, reason: str, message: str, *, status: bool = True) -> Condition:
    return Condition(name, status, reason, clipped(message, MAX_MESSAGE))


def _ref(parent: ParentReference) -> dict[str, str | int]:
    """A parentRef with the fields of the API that the spec sets."""
    fields: dict[str, str | int | None] = {
        "group": parent.group,
        "kind": parent.kind,
        "namespace": parent.namespace,
        "name": parent.name,
        "sectionName": parent.section_name,
        "port": parent.port,
    }
    return {name: value for name, value in fields.items() if value is not None}
