"""Nodes to the zones that they are in."""

from xds_server.model.tables import NODE_ZONES, Entry
from xds_server.objects import core

ZONE_LABEL = "topology.kubernetes.io/zone"
"""https://kubernetes.io/docs/reference/labels-annotations-taints/#topologykubernetesiozone"""


class NodeAssembler:
    """Keeps the zone of each node, and works out which have changed."""

    def __init__(self) -> None:
        self._zones: dict[str, str] = {}
        self._changes: dict[Entry, str | None] = {}

    def put(self, name: str, node: core.Node | None) -> None:
        """Takes a node that was added, modified or (None) removed."""
        zone = (node.metadata.labels or {}).get(ZONE_LABEL) if node else None
        if (zone or None) == self._zones.get(name):
            return
        if zone:
            self._zones[name] = zone
        else:
            del self._zones[name]
        self._changes[Entry(NODE_ZONES, name)] = zone or None

    def flush(self) -> dict[Entry, str | None]:
        """Returns the entries that have changed since the last call."""
        changes, self._changes = self._changes, {}
        return changes
