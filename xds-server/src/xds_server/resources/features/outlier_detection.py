"""Endpoints that fail are taken out of the balancing for a while.

https://github.com/grpc/proposal/blob/master/A50-xds-outlier-detection.md
"""

from envoy.config.cluster.v3 import cluster_pb2

from xds_server.model.traffic import OutlierDetection
from xds_server.resources.durations import duration


def apply(cluster: cluster_pb2.Cluster, policy: OutlierDetection | None) -> None:
    """Sets outlier detection. An algorithm that the policy does not name ejects nothing."""
    if policy is None:
        return
    config = cluster.outlier_detection
    config.interval.CopyFrom(duration(policy.interval))
    config.base_ejection_time.CopyFrom(duration(policy.base_ejection_time))
    config.max_ejection_time.CopyFrom(duration(policy.max_ejection_time))
    config.max_ejection_percent.value = policy.max_ejection_percent
    # gRPC does not count consecutive errors; Envoy would by default.
    config.enforcing_consecutive_5xx.value = 0
    config.enforcing_consecutive_gateway_failure.value = 0
    by_percentage, by_rate = policy.failure_percentage, policy.success_rate
    config.enforcing_failure_percentage.value = by_percentage.enforcement_percent if by_percentage else 0
    if by_percentage:
        config.failure_percentage_threshold.value = by_percentage.threshold
        config.failure_percentage_minimum_hosts.value = by_percentage.minimum_hosts
        config.failure_percentage_request_volume.value = by_percentage.request_volume
    # By default, clients enforce the success rate.
    config.enforcing_success_rate.value = by_rate.enforcement_percent if by_rate else 0
    if by_rate:
        config.success_rate_stdev_factor.value = by_rate.stdev_factor
        config.success_rate_minimum_hosts.value = by_rate.minimum_hosts
        config.success_rate_request_volume.value = by_rate.request_volume
