"""The longest time of a request with its retries.

https://github.com/grpc/proposal/blob/master/A31-xds-timeout-support-and-config-selector.md
"""

from envoy.config.route.v3 import route_components_pb2

from xds_server.resources.durations import duration


def apply(action: route_components_pb2.RouteAction, timeout: float | None) -> None:
    """Sets the timeout of a route. Clients ignore ``RouteAction.timeout``; 0 is none.

    Args:
        action: Of the route.
        timeout: In seconds; None if nothing is said.
    """
    if timeout:
        action.max_stream_duration.max_stream_duration.CopyFrom(duration(timeout))
