"""What in an object can't be used, for logs, metrics and debug pages."""

from collections.abc import Sequence
from typing import NamedTuple

import structlog

from xds_server.objects.meta import Key

log = structlog.get_logger()

_LOGGED = 10
"""New problems of one owner that one change may log, at most: a slice has up to 1000 endpoints."""

Owner = tuple[str, str, str]
"""Kind, namespace and name of the object that people look at: a Service for the problems of its slices."""


class Problem(NamedTuple):
    """Something in an object that can't be used; everything else in it is used.

    Attributes:
        kind: Of the object, such as EndpointSlice.
        key: (namespace, name) of the object.
        reason: What is wrong, and what happens because of it.
    """

    kind: str
    key: Key
    reason: str


class ProblemLog:
    """Logs problems when they appear."""

    def __init__(self) -> None:
        self._known: dict[Owner, Sequence[Problem]] = {}

    def update(self, owner: Owner, problems: Sequence[Problem]) -> Sequence[Problem]:
        """Takes all problems that an owner has now, in any order; returns those that are new and were logged."""
        known = set(self._known.pop(owner, ()))
        if problems:
            self._known[owner] = problems
        new = [problem for problem in problems if problem not in known]
        for problem in new[:_LOGGED]:
            log.warning(
                "object can't be used as it is",
                kind=problem.kind,
                object="/".join(problem.key),
                reason=problem.reason,
            )
        if len(new) > _LOGGED:
            log.warning(
                "more objects of the same owner can't be used as they are",
                owner="/".join(owner),
                more=len(new) - _LOGGED,
                hint="see /debug/services for all of them",
            )
        return new[:_LOGGED]
