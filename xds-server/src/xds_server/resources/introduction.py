"""The first of two steps in which a route changes for a client that has it: clusters are named before they get requests.

grpc-go loses calls ("unknown cluster selected for RPC") if a route sends requests to a cluster that the client has not
set up yet. So a client is first sent the route that it has, with one more rule at its end, which matches no request and
names the new clusters; it sets them up, and gets the route as it should be a moment later.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from envoy.config.route.v3 import route_components_pb2, route_pb2

from xds_server.resources.types import Resource, serialise

PATH = "/-/-"
"""The path of no method: the names of services and methods can't be that."""


class FirstStep(NamedTuple):
    """The first step of a route that changes.

    Attributes:
        route: What to send.
        clusters: The clusters that it names and that get no requests yet.
    """

    route: Resource
    clusters: frozenset[str]


@lru_cache(maxsize=1024)
def introduce(sent: Resource, wanted: Resource) -> FirstStep | None:
    """The first step from one form of a route to another; None if it names no new clusters.

    Args:
        sent: What the client was sent last; it may be a first step itself.
        wanted: What it should have.
    """
    step = route_pb2.RouteConfiguration.FromString(sent.body)
    host = step.virtual_hosts[0]
    known = _clusters(host.routes)
    wanted_clusters = _clusters(route_pb2.RouteConfiguration.FromString(wanted.body).virtual_hosts[0].routes)
    if wanted_clusters <= known:
        return None
    # The rule of an earlier first step is replaced. Its clusters stay: otherwise a route that goes on changing between a
    # few clusters would be introduced again and again, and never reach the client.
    if host.routes and host.routes[-1].match.path == PATH:
        del host.routes[-1]
    new = frozenset((known | wanted_clusters) - _clusters(host.routes))
    rule = host.routes.add(match=route_components_pb2.RouteMatch(path=PATH))
    for name in sorted(new):
        rule.route.weighted_clusters.clusters.add(name=name).weight.value = 1
    return FirstStep(serialise(sent.name, step), new)


def _clusters(routes: Iterable[route_components_pb2.Route]) -> set[str]:
    """The names of all clusters in routes."""
    found: set[str] = set()
    for route in routes:
        found.update(cluster.name for cluster in route.route.weighted_clusters.clusters)
        if route.route.cluster:
            found.add(route.route.cluster)
    return found
