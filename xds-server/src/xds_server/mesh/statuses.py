"""What the status of a route or policy has to say, and how that is merged into the status that it has. Pure.

``kubernetes`` writes it, and the debug pages show it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

CONTROLLER = "proxyless-grpc-lb.dev/xds-server"
"""Marks the entries of a status that are ours: those with this ``controllerName``."""


class Condition(NamedTuple):
    """A meta/v1 Condition, without the times and the generation, which are filled in when it is written.

    Attributes:
        type: Such as Accepted.
        status: Whether it holds.
        reason: A word of the specification, such as NoMatchingParent.
        message: For people: names the field and what to do.
    """

    type: str
    status: bool
    reason: str
    message: str


class StatusEntry(NamedTuple):
    """What is said about one parent of a route, or one target of a policy.

    Attributes:
        ref: The reference, with the fields of the API and without those that are not set in the spec.
        conditions: At most one of each type.
    """

    ref: Mapping[str, str | int]
    conditions: tuple[Condition, ...]


class Status(NamedTuple):
    """Our part of the status of one object.

    Attributes:
        generation: The generation of the spec that it is about.
        entries: One for each parent or target that is ours; the status has none of ours if there are none.
    """

    generation: int
    entries: tuple[StatusEntry, ...]


class StatusFields(NamedTuple):
    """How a kind names the parts of its status.

    Attributes:
        entries: The list of entries.
        ref: What an entry is about.
        limit: The most entries that the list may have.
    """

    entries: str
    ref: str
    limit: int


PARENTS = StatusFields("parents", "parentRef", 32)
"""https://gateway-api.sigs.k8s.io/reference/spec/#routestatus"""
ANCESTORS = StatusFields("ancestors", "ancestorRef", 16)
"""https://gateway-api.sigs.k8s.io/reference/spec/#policystatus"""

MAX_MESSAGE_LENGTH = 4_096
"""Of a condition; the API allows 32,768 characters."""


def merge(
    current: Mapping[str, Any] | None, wanted: Status, fields: StatusFields, now: str
) -> list[Any] | None:
    """Merges our entries into the list of a status; None if it has them already.

    Entries of other controllers stay as they are. A condition keeps its time while its status stays.

    Args:
        current: The status as it was read.
        wanted: What it has to say.
        fields: The names of its parts.
        now: In RFC 3339, for conditions that change.
    """
    entries = (current or {}).get(fields.entries)
    entries = entries if isinstance(entries, list) else []
    ours = [entry for entry in entries if _is_ours(entry)]
    others = [entry for entry in entries if not _is_ours(entry)]
    known = {str(_sorted(entry.get(fields.ref))): entry for entry in ours}
    room = max(0, fields.limit - len(others))
    merged = [
        {
            fields.ref: dict(entry.ref),
            "controllerName": CONTROLLER,
            "conditions": _conditions(
                known.get(str(_sorted(entry.ref)), {}).get("conditions"), entry, wanted.generation, now
            ),
        }
        for entry in wanted.entries[:room]
    ]
    return None if merged == ours else [*others, *merged]


def is_outdated(current: Mapping[str, Any] | None, wanted: Status, fields: StatusFields) -> bool:
    """Whether our entries say nothing yet about the generation that is wanted."""
    entries = (current or {}).get(fields.entries)
    ours = [entry for entry in entries if _is_ours(entry)] if isinstance(entries, list) else []
    conditions = [c for entry in ours for c in entry.get("conditions") or () if isinstance(c, dict)]
    return all(condition.get("observedGeneration") != wanted.generation for condition in conditions)


def _is_ours(entry: object) -> bool:
    return isinstance(entry, dict) and entry.get("controllerName") == CONTROLLER


def _sorted(ref: object) -> object:
    return sorted(ref.items()) if isinstance(ref, Mapping) else ref


def _conditions(known: object, entry: StatusEntry, generation: int, now: str) -> list[dict[str, Any]]:
    before = {c.get("type"): c for c in known if isinstance(c, dict)} if isinstance(known, list) else {}
    found = []
    for condition in entry.conditions:
        status = "True" if condition.status else "False"
        old = before.get(condition.type, {})
        since = old.get("lastTransitionTime") if old.get("status") == status else None
        found.append(
            {
                "type": condition.type,
                "status": status,
                "observedGeneration": generation,
                "lastTransitionTime": since or now,
                "reason": condition.reason,
                "message": condition.message[:MAX_MESSAGE_LENGTH],
            }
        )
    return found
