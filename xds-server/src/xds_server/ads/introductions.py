"""A route that is changed in two steps, between the first and the second (``resources.introduction``). Pure.

The second step follows when the client has had time to set up the clusters that the first one named: it acknowledged the
first step, each Cluster and its endpoints, and a moment has passed since, as a client acknowledges before it has set up.
"""

from dataclasses import dataclass

from xds_server.resources.types import Resource

CHECKS_AFTER_READY = 2
"""How many checks later the second step follows."""
MAX_CHECKS = 40
"""After so many checks the second step follows in any case: a Cluster may not exist any more, or be rejected."""


@dataclass(slots=True)
class Introduction:
    """A route whose first step was sent.

    Attributes:
        wanted: What was to follow when the first step was sent.
        clusters: The clusters that the first step named, and that get no requests yet.
    """

    wanted: Resource
    clusters: frozenset[str]
    _checks: int = 0
    _ready: int = 0

    @property
    def is_over(self) -> bool:
        """Whether the second step may follow."""
        return self._ready > CHECKS_AFTER_READY or self._checks >= MAX_CHECKS

    def check(self, *, is_ready: bool) -> None:
        """Records whether the client has acknowledged everything at this moment."""
        self._checks += 1
        self._ready = self._ready + 1 if is_ready else 0
