"""Which endpoints a client should prefer, by the hints of Kubernetes.

https://kubernetes.io/docs/concepts/services-networking/service/#traffic-distribution
"""

from collections.abc import Sequence

from xds_server.model.service import Endpoint
from xds_server.resources.lookup import Lookup


def priorities(endpoints: Sequence[Endpoint], lookup: Lookup) -> list[list[Endpoint]]:
    """The endpoints by priority: those hinted for the client's node, then those for its zone, then all others.

    Unlike kube-proxy, a client uses the next priority when none of the first works. Hints count only if all endpoints
    have one, and node hints and zone hints are judged separately. A field of the client is read only if hints count.
    """
    rest = list(endpoints)
    ranked: list[list[Endpoint]] = []
    if not rest:
        return ranked
    if all(endpoint.for_nodes for endpoint in endpoints) and (node := lookup.client_node):
        _split(rest, [node in endpoint.for_nodes for endpoint in rest], ranked)
    if all(endpoint.for_zones for endpoint in endpoints) and (zone := lookup.client_zone):
        _split(rest, [zone in endpoint.for_zones for endpoint in rest], ranked)
    return [*ranked, rest] if rest else ranked


def _split(rest: list[Endpoint], preferred: Sequence[bool], ranked: list[list[Endpoint]]) -> None:
    """Moves the preferred endpoints into a priority of their own, if there are any."""
    found = [endpoint for endpoint, is_preferred in zip(rest, preferred, strict=True) if is_preferred]
    if found:
        ranked.append(found)
        rest[:] = [
            endpoint for endpoint, is_preferred in zip(rest, preferred, strict=True) if not is_preferred
        ]
