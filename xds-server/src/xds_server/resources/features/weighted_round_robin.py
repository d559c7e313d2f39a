"""Endpoints are weighted by the load that they report.

https://github.com/grpc/proposal/blob/master/A58-client-side-weighted-round-robin-lb-policy.md
"""

from envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.v3 import (
    client_side_weighted_round_robin_pb2 as weighted_pb2,
)

from xds_server.model.traffic import WeightedRoundRobin
from xds_server.resources.durations import duration


def policy(
    wanted: WeightedRoundRobin,
) -> weighted_pb2.ClientSideWeightedRoundRobin:
    """The policy. grpc-js does not know it and uses the next one in the list, which must be round robin."""
    config = weighted_pb2.ClientSideWeightedRoundRobin()
    if wanted.blackout_period is not None:
        config.blackout_period.CopyFrom(duration(wanted.blackout_period))
    if wanted.weight_update_period is not None:
        config.weight_update_period.CopyFrom(duration(wanted.weight_update_period))
    if wanted.out_of_band_reporting_period is not None:
        config.enable_oob_load_report.value = True
        config.oob_reporting_period.CopyFrom(duration(wanted.out_of_band_reporting_period))
    return config
