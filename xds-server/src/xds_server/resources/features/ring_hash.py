"""Requests with an equal header go to one endpoint.

https://github.com/grpc/proposal/blob/master/A42-xds-ring-hash-lb-policy.md
"""

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.route.v3 import route_components_pb2

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
