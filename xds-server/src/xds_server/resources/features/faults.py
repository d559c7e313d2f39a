"""Faults that clients inject into their own requests.

https://github.com/grpc/proposal/blob/master/A33-Fault-Injection.md
"""

from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.common.fault.v3 import fault_pb2 as common_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as manager_pb2,
)
from envoy.type.v3 import percent_pb2

from xds_server.model.traffic import STATUS_CODES, Fault
from xds_server.resources.durations import duration
from xds_server.resources.types import pack

FILTER = "fault"
"""The name of the filter, by which routes refer to it."""


def http_filter() -> manager_pb2.HttpFilter:
    """The filter, without a fault of its own. A Listener must have it for the faults of routes to take effect."""
    return manager_pb2.HttpFilter(name=FILTER, typed_config=pack(fault_pb2.HTTPFault()))


def apply(route: route_components_pb2.Route, fault: Fault | None) -> None:
    """Sets the faults of the requests of a route."""
    if fault is None:
        return
    config = fault_pb2.HTTPFault()
    if fault.abort:
        config.abort.grpc_status = STATUS_CODES.index(fault.abort.code)
        config.abort.percentage.CopyFrom(_percent(fault.abort.percent))
    if fault.delay:
        config.delay.CopyFrom(
            common_pb2.FaultDelay(
                fixed_delay=duration(fault.delay.duration), percentage=_percent(fault.delay.percent)
            )
        )
    route.typed_per_filter_config[FILTER].CopyFrom(pack(config))


def _percent(percent: int) -> percent_pb2.FractionalPercent:
    return percent_pb2.FractionalPercent(numerator=percent, denominator=percent_pb2.FractionalPercent.HUNDRED)
