"""Listener: the first resource that a client subscribes to. It refers to the routes."""

from envoy.config.core.v3 import config_source_pb2
from envoy.config.listener.v3 import api_listener_pb2, listener_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as manager_pb2,
)

from xds_server.resources.features import faults
from xds_server.resources.lookup import Lookup
from xds_server.resources.names import TargetName, resolve
from xds_server.resources.route import policies
from xds_server.resources.types import Resource, pack, serialise


def build(name: str, target: TargetName, lookup: Lookup) -> Resource | None:
    """Builds the Listener for gRPC clients.

    Args:
        name: As the client spells it, byte for byte: clients ignore a Listener with another name (gRFC A27).
        target: The same, parsed.
        lookup: Where to find the service that is meant.
    """
    port = resolve(target, lookup)
    if port is None:
        return None
    route = str(port)
    # The last filter must be the router, or clients reject the Listener (gRFC A39).
    filters = [manager_pb2.HttpFilter(name="router", typed_config=pack(router_pb2.Router()))]
    if any(policy.fault for policy in policies(port, lookup)):
        filters.insert(0, faults.http_filter())
    manager = manager_pb2.HttpConnectionManager(
        # gRPC ignores the prefix; Envoy requires one.
        stat_prefix=route,
        rds=manager_pb2.Rds(
            config_source=config_source_pb2.ConfigSource(
                ads=config_source_pb2.AggregatedConfigSource(), resource_api_version=config_source_pb2.V3
            ),
            route_config_name=route,
        ),
        http_filters=filters,
    )
    listener = listener_pb2.Listener(
        name=name, api_listener=api_listener_pb2.ApiListener(api_listener=pack(manager))
    )
    return serialise(name, listener)
