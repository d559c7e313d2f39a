"""Reports of how many requests a client sends to a service, on a stream of their own to the server of the Cluster.

https://github.com/grpc/proposal/blob/master/A27-xds-global-load-balancing.md
"""

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import config_source_pb2


def apply(cluster: cluster_pb2.Cluster) -> None:
    """Makes clients report, to the server that sent the Cluster."""
    cluster.lrs_server.CopyFrom(config_source_pb2.ConfigSource(self=config_source_pb2.SelfConfigSource()))
