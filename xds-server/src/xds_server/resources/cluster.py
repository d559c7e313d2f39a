"""Cluster: how requests are balanced over the endpoints."""

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import config_source_pb2, extension_pb2, protocol_pb2
from envoy.extensions.load_balancing_policies.round_robin.v3 import round_robin_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2 as protocol_options_pb2
from google.protobuf import any_pb2

from xds_server.model.service import PortName
from xds_server.resources.lookup import Lookup
from xds_server.resources.names import exists
from xds_server.resources.types import Resource, serialise

PROTOCOL_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
"""The key that Envoy looks for."""


def build(port: PortName, lookup: Lookup) -> Resource | None:
    """Builds a Cluster whose requests are balanced over all endpoints alike, whatever their zones.

    ``lb_policy: ROUND_ROBIN`` alone would pick a locality by weight first and go round inside it, so that replies would
    not alternate over two zones. A bare RoundRobin in ``load_balancing_policy`` (gRFC A52) goes round all endpoints;
    clients that do not know that field yet use ``lb_policy``.
    """
    if not exists(port, lookup):
        return None
    name = str(port)
    policy = any_pb2.Any()
    policy.Pack(round_robin_pb2.RoundRobin(), deterministic=True)
    # gRPC always speaks HTTP/2; Envoy speaks HTTP/1.1 to a cluster without this option.
    http2 = protocol_options_pb2.HttpProtocolOptions.ExplicitHttpConfig(
        http2_protocol_options=protocol_pb2.Http2ProtocolOptions()
    )
    protocol = any_pb2.Any()
    protocol.Pack(protocol_options_pb2.HttpProtocolOptions(explicit_http_config=http2), deterministic=True)
    round_robin = cluster_pb2.LoadBalancingPolicy.Policy(
        typed_extension_config=extension_pb2.TypedExtensionConfig(name="round_robin", typed_config=policy)
    )
    source = config_source_pb2.ConfigSource(
        ads=config_source_pb2.AggregatedConfigSource(), resource_api_version=config_source_pb2.V3
    )
    cluster = cluster_pb2.Cluster(
        name=name,
        type=cluster_pb2.Cluster.EDS,
        eds_cluster_config=cluster_pb2.Cluster.EdsClusterConfig(eds_config=source, service_name=name),
        lb_policy=cluster_pb2.Cluster.ROUND_ROBIN,
        load_balancing_policy=cluster_pb2.LoadBalancingPolicy(policies=[round_robin]),
        typed_extension_protocol_options={PROTOCOL_OPTIONS: protocol},
    )
    return serialise(name, cluster)
