"""Routes and policies with what their statuses say."""

from collections.abc import Iterator
from dataclasses import dataclass

from xds_server.admin.views.listing import Page, page
from xds_server.admin.views.state import State
from xds_server.mesh.statuses import Condition
from xds_server.model.service import ServiceName

GOOD = {"Accepted": True, "ResolvedRefs": True, "Programmed": True, "PartiallyInvalid": False}
"""Conditions, each with the status that it has if all is well."""


@dataclass(frozen=True, slots=True)
class ConditionRow:
    """One condition.

    Attributes:
        type: Such as Accepted.
        status: Whether it holds.
        reason: A word.
        message: For people.
        good: Whether all is well.
    """

    type: str
    status: bool
    reason: str
    message: str
    good: bool


@dataclass(frozen=True, slots=True)
class ObjectRow:
    """What is said about one route or policy and one Service (or route) that it is about.

    Attributes:
        kind: Of the object.
        namespace: Of the object.
        name: Of the object.
        target: What it is about, in words.
        service: The Service that it is about; None if it is about a route.
        conditions: What is said.
        good: Whether all is well.
    """

    kind: str
    namespace: str
    name: str
    target: str
    service: ServiceName | None
    conditions: tuple[ConditionRow, ...]
    good: bool


def traffic(state: State, query: str, number: int) -> Page[ObjectRow]:
    """All routes and policies; those with which something is wrong come first."""
    rows = sorted(objects(state), key=lambda row: (row.good, row.kind, row.namespace, row.name))
    return page(rows, lambda row: f"{row.kind} {row.namespace}/{row.name} {row.target}", query, number)


def of_service(state: State, service: ServiceName) -> list[ObjectRow]:
    """The routes and policies that are about a Service."""
    return [row for row in objects(state) if row.service == service]


def objects(state: State) -> Iterator[ObjectRow]:
    """Yields what is said about each route and policy, target by target."""
    for kind, (namespace, name), status in state.statuses:
        for entry in status.entries:
            target_kind, target = str(entry.ref.get("kind", "Service")), str(entry.ref.get("name", ""))
            where = str(entry.ref.get("namespace", namespace))
            detail = "".join(
                f", {field} {entry.ref[field]}" for field in ("sectionName", "port") if field in entry.ref
            )
            conditions = tuple(map(_condition, entry.conditions))
            yield ObjectRow(
                kind.name,
                namespace,
                name,
                f"{target_kind} {where}/{target}{detail}",
                ServiceName(where, target) if target_kind == "Service" else None,
                conditions,
                good=all(condition.good for condition in conditions),
            )


def _condition(condition: Condition) -> ConditionRow:
    good = GOOD.get(condition.type, True) is condition.status
    return ConditionRow(condition.type, condition.status, condition.reason, condition.message, good)
