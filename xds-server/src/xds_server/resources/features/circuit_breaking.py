"""A bound on the concurrent requests of one client to one service.

https://github.com/grpc/proposal/blob/master/A32-xds-circuit-breaking.md
"""

from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2

from xds_server.resources.features import load_reports


def apply(cluster: cluster_pb2.Cluster, max_concurrent_requests: int | None) -> None:
    """Sets the bound; without one, the client's default of 1,024 stays."""
    if max_concurrent_requests is None:
        return
    thresholds = circuit_breaker_pb2.CircuitBreakers.Thresholds()
    thresholds.max_requests.value = max_concurrent_requests
    cluster.circuit_breakers.thresholds.append(thresholds)
    # grpc-java counts the requests in flight only where it counts them for load reports: without this field the bound
    # has no effect there.
    load_reports.apply(cluster)
