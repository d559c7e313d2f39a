"""Requests with an equal header go to one endpoint.

https://github.com/grpc/proposal/blob/master/A42-xds-ring-hash-lb-policy.md
"""

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.route.v3 import route_components_pb2

from xds_server.model.service import Endpoint
from xds_server.model.traffic import RingHash


def apply(cluster: cluster_pb2.Cluster, policy: RingHash) -> None:
    """Sets the load balancing of the service that answers.

    The enum is sent, without ``load_balancing_policy``: grpc-js rejects a ring size in the latter, and other clients its
    default hash function.
    """
    cluster.lb_policy = cluster_pb2.Cluster.RING_HASH
    config = cluster.ring_hash_lb_config
    config.hash_function = cluster_pb2.Cluster.RingHashLbConfig.XX_HASH
    if policy.minimum_ring_size is not None:
        config.minimum_ring_size.value = policy.minimum_ring_size


def apply_hash(action: route_components_pb2.RouteAction, header: str) -> None:
    """Sets the header that is hashed; it is part of the routes of the service that is called."""
    policy = route_components_pb2.RouteAction.HashPolicy
    action.hash_policy.append(policy(header=policy.Header(header_name=header)))


def zone(_: Endpoint) -> str:
    """Returns the zone that the locality of an endpoint has: all endpoints of a priority are in one locality.

    On a ring, clients multiply the weight of an endpoint with that of its locality, which is the number of its endpoints,
    so that in a zone of ten each would have ten times its share (gRFC A42). Newer ones divide it by the sum of the
    locality's weights (gRFC A113), so no other weight of the locality suits all. In one locality, all are alike.
    """
    return ""
