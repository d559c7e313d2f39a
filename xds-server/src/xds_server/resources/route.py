"""RouteConfiguration: sends every request to one cluster."""

from envoy.config.route.v3 import route_components_pb2, route_pb2

from xds_server.model.service import PortName
from xds_server.resources.lookup import Lookup
from xds_server.resources.names import exists
from xds_server.resources.types import Resource, serialise


def build(port: PortName, lookup: Lookup) -> Resource | None:
    """Builds the RouteConfiguration of one port of one service."""
    if not exists(port, lookup):
        return None
    name = cluster = str(port)
    everything = route_components_pb2.Route(
        match=route_components_pb2.RouteMatch(prefix=""),
        route=route_components_pb2.RouteAction(cluster=cluster),
    )
    # Clients match domains against the target, port included, in the spelling that was asked for: all are meant.
    host = route_components_pb2.VirtualHost(name=name, domains=["*"], routes=[everything])
    return serialise(name, route_pb2.RouteConfiguration(name=name, virtual_hosts=[host]))
