"""Retries.

https://github.com/grpc/proposal/blob/master/A44-xds-retry.md
"""

from envoy.config.route.v3 import route_components_pb2

from xds_server.model.traffic import Retry
from xds_server.resources.durations import duration

LONGEST_PAUSE = 10
"""The longest pause between two tries, in first pauses."""


def apply(action: route_components_pb2.RouteAction, retry: Retry | None) -> None:
    """Sets the retry policy of a route. It is on each route, as grpc-java ignores that of a virtual host."""
    if retry is None:
        return
    policy = action.retry_policy
    policy.retry_on = ",".join(code.lower().replace("_", "-") for code in retry.codes)
    policy.num_retries.value = retry.attempts
    policy.retry_back_off.base_interval.CopyFrom(duration(retry.backoff))
    policy.retry_back_off.max_interval.CopyFrom(duration(retry.backoff * LONGEST_PAUSE))
