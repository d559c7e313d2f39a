"""What the status of a route or policy has to say, as the objects are now. Pure.

``kubernetes`` writes it, and the debug pages show it.
"""

from collections.abc import Mapping
from typing import NamedTuple

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
