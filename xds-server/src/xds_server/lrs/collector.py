"""The sums of load reports as metrics. Made when they are asked for, so that services that are gone have none."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from xds_server.lrs.loads import Totals
from xds_server.model.service import PortName


class LoadCollector(Collector):
    """Requests by service.

    Args:
        totals: The sums of every service that exists.
    """

    def __init__(self, totals: Callable[[], Mapping[PortName, Totals]]) -> None:
        self._totals = totals

    def collect(self) -> Iterator[Metric]:
        """Yields the metrics."""
        family = CounterMetricFamily(
            "xds_load_requests",
            "Requests that clients reported, by service and result: succeeded, failed, or dropped by the client itself.",
            labels=["service", "result"],
        )
        for service, totals in sorted(self._totals().items()):
            for result, number in totals._asdict().items():
                family.add_metric([str(service), result], number)
        yield family

    def describe(self) -> list[Metric]:
        """Says nothing, so that registering does not collect."""
        return []
