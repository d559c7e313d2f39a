"""RouteConfiguration: sends every request to the one cluster."""

from envoy.config.route.v3 import route_components_pb2, route_pb2

from xds_server.resources.types import Resource, serialise


def build(name: str, cluster: str) -> Resource:
    """A RouteConfiguration for one port of one service.

    Args:
        name: Its canonical name.
        cluster: Name of the Cluster.
    """
    everything = route_components_pb2.Route(
        match=route_components_pb2.RouteMatch(prefix=""),
        route=route_components_pb2.RouteAction(cluster=cluster),
    )
    # Domains are matched against the target with its port, in whatever spelling; the one that asked is meant.
    host = route_components_pb2.VirtualHost(name=name, domains=["*"], routes=[everything])
    return serialise(name, route_pb2.RouteConfiguration(name=name, virtual_hosts=[host]))
