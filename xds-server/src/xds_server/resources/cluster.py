"""Cluster: how requests are balanced over the endpoints of a port."""

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import config_source_pb2, extension_pb2, protocol_pb2
from envoy.extensions.load_balancing_policies.round_robin.v3 import round_robin_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2 as protocol_options_pb2
from google.protobuf.message import Message

from xds_server.model.service import PortName
from xds_server.model.tables import POLICIES
from xds_server.model.traffic import Policy, RingHash, Unavailable, WeightedRoundRobin
from xds_server.resources.features import (
    circuit_breaking,
    outlier_detection,
    ring_hash,
    tls,
    weighted_round_robin,
)
from xds_server.resources.features import (
    load_reports as reports,
)
from xds_server.resources.lookup import Lookup
from xds_server.resources.names import exists
from xds_server.resources.types import Resource, pack, serialise

PROTOCOL_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def build(port: PortName, lookup: Lookup, *, load_reports: bool) -> Resource | None:
    """Builds the Cluster of one port of one service; without a policy it is round robin over all endpoints.

    Args:
        port: The port.
        lookup: What is known.
        load_reports: Whether clients are to report how many requests they send.
    """
    policy = lookup.get(POLICIES, port) or Policy()
    # No route names the cluster of a closed port (``route.rules``); a client that asks for it gets none either.
    if not exists(port, lookup) or policy.is_closed:
        return None
    return _serialise(str(port), policy, load_reports=load_reports)


def build_unavailable(target: Unavailable, _: Lookup) -> Resource:
    """Builds the Cluster of a backend that can't be reached: it has no endpoints."""
    return _serialise(str(target), Policy(), load_reports=False)


def _serialise(name: str, policy: Policy, *, load_reports: bool) -> Resource:
    # gRPC always speaks HTTP/2; Envoy speaks HTTP/1.1 to a cluster without this option.
    http2 = protocol_options_pb2.HttpProtocolOptions.ExplicitHttpConfig(
        http2_protocol_options=protocol_pb2.Http2ProtocolOptions()
    )
    source = config_source_pb2.ConfigSource(
        ads=config_source_pb2.AggregatedConfigSource(), resource_api_version=config_source_pb2.V3
    )
    cluster = cluster_pb2.Cluster(
        name=name,
        type=cluster_pb2.Cluster.EDS,
        eds_cluster_config=cluster_pb2.Cluster.EdsClusterConfig(eds_config=source, service_name=name),
        typed_extension_protocol_options={
            PROTOCOL_OPTIONS: pack(protocol_options_pb2.HttpProtocolOptions(explicit_http_config=http2))
        },
    )
    _balance(cluster, policy)
    circuit_breaking.apply(cluster, policy.max_concurrent_requests)
    outlier_detection.apply(cluster, policy.outlier_detection)
    tls.apply(cluster, policy.tls)
    if load_reports:
        reports.apply(cluster)
    return serialise(name, cluster)


def _balance(cluster: cluster_pb2.Cluster, policy: Policy) -> None:
    """Sets the load balancing.

    ``lb_policy: ROUND_ROBIN`` alone would pick a locality by weight first and go round inside it, so that replies would
    not alternate over two zones. A bare RoundRobin in ``load_balancing_policy`` (gRFC A52) goes round all endpoints;
    clients that do not know that field yet use ``lb_policy``. Clients use the first policy of the list that they know,
    so a list ends with RoundRobin, which all know.
    """
    wanted = policy.load_balancing
    if isinstance(wanted, RingHash):
        ring_hash.apply(cluster, wanted)
        return
    cluster.lb_policy = cluster_pb2.Cluster.ROUND_ROBIN
    policies = [_named("round_robin", round_robin_pb2.RoundRobin())]
    if isinstance(wanted, WeightedRoundRobin):
        policies.insert(0, _named("weighted_round_robin", weighted_round_robin.policy(wanted)))
    cluster.load_balancing_policy.policies.extend(policies)


def _named(name: str, config: Message) -> cluster_pb2.LoadBalancingPolicy.Policy:
    return cluster_pb2.LoadBalancingPolicy.Policy(
        typed_extension_config=extension_pb2.TypedExtensionConfig(name=name, typed_config=pack(config))
    )
