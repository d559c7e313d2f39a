"""Load reports: what is believed of them, and the sums that are made of them."""

import pytest
from envoy.service.load_stats.v3 import lrs_pb2
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from xds_server.errors import ExhaustedError, ForbiddenError, InvalidRequestError
from xds_server.lrs.loads import FEW_EDGES, FRESH_INTERVALS, MAX_EDGES, Counts, Edge, Loads, Rate, Totals
from xds_server.lrs.session import (
    BURST,
    MAX_CLUSTERS,
    MAX_COUNTED_SECONDS,
    MAX_LOCALITIES,
    MAX_RATE,
    MAX_ZONES,
    Session,
)
from xds_server.model.identity import Identity
from xds_server.model.service import PortName, ServiceName
from xds_server.model.workload import Workload, of_client

WEB = PortName(ServiceName("shop", "web"), 80)
API = PortName(ServiceName("shop", "api"), 80)
CALLER = Workload("shop", "checkout")
INTERVAL = 5.0


# ---- workloads ----


@pytest.mark.parametrize(
    ("node_id", "name"),
    [
        ("hello-client-7d79c584f6-xbv4l.shop", "hello-client"),
        ("hello-client-69d5b-xbv4l.shop", "hello-client"),
        ("node-agent-x7k2p.shop", "node-agent"),
        ("database-0.shop", "database"),
        ("database-12.shop", "database"),
        ("hello-client.shop", "hello-client"),
        ("hello-client", "hello-client"),
        ("hello-client.bank", "hello-client.bank"),
        ("web-api.shop", "web-api"),
        ("x7k2p.shop", "x7k2p"),
        ("-0.shop", "-0"),
        ("", "unknown"),
        (".shop", "unknown"),
        ("any text / at all", "any text / at all"),
    ],
)
def test_the_workload_of_a_pod(node_id: str, name: str) -> None:
    assert of_client(node_id, "shop") == Workload("shop", name)


@given(st.text(max_size=400))
def test_every_id_has_a_workload(node_id: str) -> None:
    assert of_client(node_id, "shop").name


# ---- what a client says ----


def report(**clusters: dict[str, tuple[int, int, int]]) -> lrs_pb2.LoadStatsRequest:
    """A report: by cluster (web stands for web.shop:80) and zone, requests that succeeded, failed, and go on."""
    request = lrs_pb2.LoadStatsRequest()
    for name, zones in clusters.items():
        cluster = request.cluster_stats.add(cluster_name=f"{name}.shop:80")
        cluster.load_report_interval.seconds = 10
        for zone, (succeeded, failed, going_on) in zones.items():
            locality = cluster.upstream_locality_stats.add(
                total_successful_requests=succeeded,
                total_error_requests=failed,
                total_requests_in_progress=going_on,
            )
            locality.locality.zone = zone
    return request


def first(node_id: str = "checkout-0.shop", namespace: str = "shop") -> lrs_pb2.LoadStatsRequest:
    request = lrs_pb2.LoadStatsRequest()
    request.node.id = node_id
    request.node.metadata["NAMESPACE"] = namespace
    return request


@pytest.fixture
def session() -> Session:
    session = Session(INTERVAL, {WEB, API}.__contains__)
    session.begin(first())
    return session


def test_a_client_is_asked_to_report_everything() -> None:
    session = Session(2.5, {WEB}.__contains__)
    response = lrs_pb2.LoadStatsResponse.FromString(session.begin(first()))
    assert response.send_all_clusters
    assert response.load_reporting_interval == Duration(seconds=2, nanos=500_000_000)
    assert session.caller == CALLER


def test_a_report_counts_by_service_and_zone(session: Session) -> None:
    request = report(web={"a": (10, 2, 1), "b": (5, 0, 0)}, api={"": (1, 1, 1)})
    request.cluster_stats[0].total_dropped_requests = 3
    assert list(session.counts(request)) == [
        Counts(WEB, "a", 10, 2, 0, 1, 10.0),
        Counts(WEB, "b", 5, 0, 0, 0, 10.0),
        Counts(WEB, "", 0, 0, 3, 0, 10.0),
        Counts(API, "", 1, 1, 0, 1, 10.0),
    ]


def test_services_that_do_not_exist_count_nothing(session: Session) -> None:
    request = report(gone={"a": (1, 1, 1)})
    request.cluster_stats.add(cluster_name="BackendNotFound: Service shop/gone").total_dropped_requests = 7
    assert list(session.counts(request)) == []


def test_before_the_first_request_nothing_counts() -> None:
    with pytest.raises(InvalidRequestError, match="node"):
        list(Session(INTERVAL, {WEB}.__contains__).counts(report(web={"a": (1, 1, 1)})))


def test_a_client_can_not_be_somebody_else() -> None:
    session = Session(INTERVAL, {WEB}.__contains__, Identity("cluster.local", "bank", "teller"))
    with pytest.raises(ForbiddenError, match="namespace shop"):
        session.begin(first())
    session.begin(first("teller-0.bank", ""))
    assert session.caller == Workload("bank", "teller")


def test_numbers_are_cut_to_what_can_be(session: Session) -> None:
    request = report(web={"a": (2**63, 2**63, 2**63)})
    request.cluster_stats[0].total_dropped_requests = 2**63
    for seconds in (-5, 0, 2**40):
        request.cluster_stats[0].load_report_interval.seconds = seconds
        for counts in session.counts(request):
            largest = max(counts.succeeded, counts.failed, counts.dropped, counts.in_progress)
            assert largest <= MAX_RATE * MAX_COUNTED_SECONDS
            assert 0.1 <= counts.seconds <= 3_600


def test_zones_that_do_not_exist_take_little(session: Session) -> None:
    found = list(session.counts(report(web={f"zone-{n}": (1, 0, 0) for n in range(100)})))
    assert sum(counts.succeeded for counts in found) == 100
    assert len({counts.zone for counts in found}) == MAX_ZONES + 1


def test_what_all_streams_report_is_bounded() -> None:
    loads = Loads(INTERVAL)
    counts = [Counts(WEB, str(zone), 1, 0, 0, 0, 1.0) for zone in range(1_000)]
    for stream in range(MAX_EDGES // 1_000):
        loads.report(stream, Workload("shop", f"w{stream}"), counts, now=0.0)
    assert len(loads.rates(0.0)) == MAX_EDGES
    loads.report(-1, CALLER, counts, now=0.0)
    assert len(loads.rates(0.0)) == MAX_EDGES + FEW_EDGES
    loads.forget(0)
    loads.forget(1)
    loads.report(-1, CALLER, counts, now=0.0)
    assert len(loads.rates(0.0)) == MAX_EDGES - 1_000


def test_long_reports_are_cut(session: Session) -> None:
    request = report(web={str(n): (1, 0, 0) for n in range(MAX_LOCALITIES + 5)})
    assert len(list(session.counts(request))) == MAX_LOCALITIES
    many = lrs_pb2.LoadStatsRequest()
    for _ in range(MAX_CLUSTERS + 5):
        many.cluster_stats.extend(report(web={"a": (1, 0, 0)}).cluster_stats)
    assert len(list(session.counts(many))) == MAX_CLUSTERS


def test_reports_that_come_much_too_often_are_refused(session: Session) -> None:
    for _ in range(BURST):
        session.admit(100.0)
    with pytest.raises(ExhaustedError, match="every 5 s"):
        session.admit(100.1)


def test_a_client_that_keeps_to_the_interval_is_never_refused_not_even_after_a_pause(
    session: Session,
) -> None:
    for step in range(100):
        session.admit(step * INTERVAL)
    for _ in range(BURST):
        session.admit(200 * INTERVAL)


@given(st.binary(max_size=300))
def test_no_report_is_an_error(data: bytes) -> None:
    session = Session(INTERVAL, {WEB}.__contains__)
    session.begin(first())
    request = report(web={"a": (1, 1, 1)})
    try:
        request.MergeFromString(data)
    except Exception:  # noqa: BLE001 - not protobuf: the servicer refuses it
        return
    list(session.counts(request))


# ---- sums ----


def counts(
    succeeded: int = 0, failed: int = 0, dropped: int = 0, *, service: PortName = WEB, zone: str = "a"
) -> Counts:
    return Counts(service, zone, succeeded, failed, dropped, 0, INTERVAL)


def test_rates_are_those_of_the_last_reports_of_all_clients() -> None:
    loads = Loads(INTERVAL)
    loads.report(1, CALLER, [counts(50, 5)], 0)
    loads.report(1, CALLER, [counts(10, 10), counts(5, zone="b")], 5)
    loads.report(2, CALLER, [counts(20), counts(dropped=5, zone="")], 5)
    loads.report(3, Workload("bank", "teller"), [counts(5)], 5)
    assert loads.rates(5) == {
        Edge(CALLER, WEB, "a"): Rate(8.0, 2.0, 0.0, 0),
        Edge(CALLER, WEB, "b"): Rate(1.0),
        Edge(CALLER, WEB, ""): Rate(dropped=1.0),
        Edge(Workload("bank", "teller"), WEB, "a"): Rate(1.0),
    }


def test_a_client_that_left_or_is_silent_has_no_rate() -> None:
    loads = Loads(INTERVAL)
    loads.report(1, CALLER, [counts(5)], 0)
    loads.report(2, CALLER, [counts(5)], 0)
    loads.forget(1)
    assert loads.rates(0) == {Edge(CALLER, WEB, "a"): Rate(1.0)}
    assert loads.rates(FRESH_INTERVALS * INTERVAL + 0.1) == {}
    loads.report(2, CALLER, [counts()], 20)
    assert loads.rates(20) == {}


def test_sums_stay_when_clients_leave_and_go_with_their_service() -> None:
    loads = Loads(INTERVAL)
    loads.report(1, CALLER, [counts(5, 1), counts(2, zone="b"), counts(7, service=API)], 0)
    loads.forget(1)
    loads.report(2, CALLER, [counts(1, 1, 1)], 0)
    assert loads.totals(lambda _: True) == {WEB: Totals(8, 2, 1), API: Totals(7)}
    assert loads.totals(WEB.__eq__) == {WEB: Totals(8, 2, 1)}
    assert loads.totals(lambda _: True) == {WEB: Totals(8, 2, 1)}
