"""The views of the page: plain data from the state of the server."""

import itertools
import math

from tests.protocol.client import CDS, LDS, RDS, Client, make_cache, publish
from tests.protocol.client import service as entries
from tests.support import objects
from tests.support.traffic import policy, route
from tests.unit.test_explain import SECURED, Mesh, service
from xds_server.admin.views import calls, clients, overview, services, traffic
from xds_server.admin.views.listing import PAGE_SIZE, page
from xds_server.admin.views.state import ClientStream, Replica, State
from xds_server.lrs.loads import Edge, Rate
from xds_server.model.service import PortName, ServiceName
from xds_server.model.workload import Workload

HELLO = PortName(ServiceName("default", "hello-server"), 50051)


def state(*found, streams=(), rates=None):
    """The state of a server with some objects, clients, and load reports."""
    mesh = Mesh(*found)
    return State(
        tables=mesh.tables,
        streams=[
            ClientStream(number, f"ipv4:10.0.0.{number}:1", client.session)
            for number, client in enumerate(streams, 1)
        ],
        statuses=list(mesh.store.statuses),
        problems=mesh.store.problems,
        rates=rates or {},
        reports=True,
        subscribers=lambda _: 3,
        age=1.0,
        replica=Replica("xds-server-1", "xds-system", 2),
    )


def edge(caller, name, zone=""):
    return Edge(Workload("shop", caller), PortName(ServiceName("shop", name), 80), zone)


# ---- lists ----


def test_a_long_list_is_paged() -> None:
    items = [f"item {n}" for n in range(2 * PAGE_SIZE + 1)]
    last = page(items, str, "", 3)
    assert (list(last.items), last.pages, last.found, last.total) == ([f"item {2 * PAGE_SIZE}"], 3, 101, 101)
    assert page(items, str, "", 99).number == 3
    assert page(items, str, "", -1).number == 1


def test_every_word_of_a_search_has_to_match_in_any_case() -> None:
    items = ["web.shop", "api.shop", "web.bank"]
    assert page(items, str, "SHOP we", 1).items == ["web.shop"]
    found = page(items, str, "nothing", 1)
    assert (list(found.items), found.pages, found.found, found.total) == ([], 1, 0, 3)


# ---- services ----


def test_the_services_are_listed_with_their_requests() -> None:
    rates = {Edge(Workload("shop", "checkout"), HELLO, "a"): Rate(10.0, 1.0)}
    found = services.services(
        state(*service("hello-server", "10.0.0.1", "10.0.0.2"), *service("api"), rates=rates), "", 1
    )
    assert [(str(row.name), row.endpoints, row.rate) for row in found.items] == [
        ("api.default", 0, Rate()),
        ("hello-server.default", 2, Rate(10.0, 1.0)),
    ]


def test_a_service_shows_endpoints_by_zone_callers_routes_and_policies() -> None:
    rates = {
        Edge(Workload("shop", "checkout"), HELLO, "a"): Rate(1.0),
        Edge(Workload("bank", "teller"), HELLO, "b"): Rate(5.0),
    }
    found = services.service(
        state(
            *service("hello-server", "10.0.0.1", "10.0.0.2"),
            route("[{backendRefs: [{name: gone, port: 1}]}]"),
            policy("timeout: 10s"),
            rates=rates,
        ),
        HELLO.service,
    )
    assert found
    [port] = found.ports
    assert [(zone.zone, zone.count, zone.addresses) for zone in port.zones] == [
        ("a", 1, ("10.0.0.1:8080",)),
        ("b", 1, ("10.0.0.2:8080",)),
    ]
    assert port.subscribers == 3
    assert [str(caller.caller) for caller, _ in found.callers] == ["teller.bank", "checkout.shop"]
    assert [(row.kind, row.good) for row in found.objects] == [
        ("GRPCRoute", False),
        ("GRPCBackendPolicy", True),
    ]
    assert found.rate == Rate(6.0)


def test_a_service_that_does_not_exist_is_none() -> None:
    assert services.service(state(), HELLO.service) is None


# ---- routes and policies ----


def test_what_is_wrong_comes_first_with_its_conditions() -> None:
    found = traffic.traffic(
        state(*service("hello-server", "10.0.0.1"), policy("timeout: 10s"), policy("timeout: 1s", name="v2")),
        "",
        1,
    )
    assert [(row.name, row.good) for row in found.items] == [("v2", False), ("hello-server", True)]
    [condition] = [each for each in found.items[0].conditions if not each.good]
    assert condition.type == "Accepted"
    assert "Service default/v2" in found.items[0].target


# ---- clients ----


def test_clients_are_found_by_what_they_say() -> None:
    cache = make_cache()
    cache.publish({})
    streams = [Client(cache, node_id="good"), Client(cache, node_id="bad")]
    for client in streams:
        client.send(LDS, ["gone.shop:1"])
    shown = clients.clients(state(streams=streams), "", 1)
    assert [(row.node, row.missing, row.rejected) for row in shown.items] == [("bad", 1, 0), ("good", 1, 0)]
    assert clients.clients(state(streams=streams), "goo 10.0.0.1", 1).found == 1


def test_a_rejection_is_shown_in_the_clients_own_words() -> None:
    cache = make_cache()
    publish(cache, entries("web", "10.0.0.1"))
    good, bad = Client(cache, node_id="a-good-one"), Client(cache, node_id="rejecting")
    for client in (good, bad):
        for kind in (LDS, RDS, CDS):
            client.send(kind, ["web.shop:80"])
            client.receive(refuse=(CDS,) if client is bad else ())
    found = state(streams=[good, bad])
    first, second = clients.clients(found, "", 1).items
    assert (first.node, first.rejected, first.acknowledged) == ("rejecting", 1, 2)
    assert (second.node, second.rejected, second.acknowledged) == ("a-good-one", 0, 3)
    details = clients.client(found, 2)
    assert details
    assert (details.resources[0].type, details.resources[0].status) == ("CDS", "rejected")
    assert details.resources[0].reason == "refused on purpose"
    assert clients.client(found, 3) is None
    assert overview.overview(found).rejections == 1
    assert [row.node for row in overview.overview(found).rejecting] == ["rejecting"]


# ---- who calls whom ----


def rectangle(picture: calls.Picture) -> None:
    """Checks that nothing overlaps or is outside of the picture."""
    for column in (picture.callers, picture.services):
        ys = [node.y for node in column]
        assert ys == sorted(ys)
        assert all(0 < y < picture.height for y in ys)
        assert all(after - before >= calls.ROW_HEIGHT for before, after in itertools.pairwise(ys))
    assert all(calls.MIN_STROKE <= curve.stroke <= calls.MAX_STROKE for curve in picture.curves)


def test_five_workloads_are_all_drawn_the_busiest_first() -> None:
    rates = {edge(f"caller-{n}", "web", zone): Rate(float(n)) for n in range(1, 6) for zone in "ab"}
    picture = calls.calls(state(rates=rates))
    rectangle(picture)
    assert [node.name for node in picture.callers] == [f"caller-{n}.shop" for n in range(5, 0, -1)]
    assert [(node.name, node.rate.requests) for node in picture.services] == [("web.shop", 30.0)]
    assert len(picture.curves) == 5
    assert picture.rate.requests == 30.0


def test_five_hundred_workloads_are_the_busiest_and_one_row_for_the_others() -> None:
    rates = {edge(f"caller-{n}", f"web-{n % 50}"): Rate(float(n)) for n in range(1, 501)}
    picture = calls.calls(state(rates=rates))
    rectangle(picture)
    assert len(picture.callers) == len(picture.services) == calls.MAX_ROWS + 1
    assert picture.callers[0].name == "caller-500.shop"
    assert picture.callers[-1].name == "all other callers"
    assert math.isclose(sum(node.rate.requests for node in picture.callers), sum(range(501)))
    assert math.isclose(picture.rate.requests, sum(range(501)))


def test_a_search_draws_a_part() -> None:
    rates = {edge("checkout", "web"): Rate(1.0), edge("basket", "api"): Rate(1.0)}
    assert [node.name for node in calls.calls(state(rates=rates), "basket").callers] == ["basket.shop"]


def test_failures_are_drawn() -> None:
    rates = {
        edge("a", "web"): Rate(10.0, 5.0),
        edge("b", "web"): Rate(10.0),
        edge("c", "web"): Rate(dropped=1.0),
    }
    assert {
        curve.title.partition(".")[0]: curve.failing for curve in calls.calls(state(rates=rates)).curves
    } == {
        "a": True,
        "b": False,
        "c": True,
    }


def test_no_calls_are_an_empty_picture() -> None:
    assert calls.calls(state()).rows == ()


# ---- overview ----


def test_the_overview_counts_and_tells_what_is_wrong() -> None:
    rates = {Edge(Workload("shop", "checkout"), HELLO, "a"): Rate(10.0)}
    bad_slice = objects.endpoint_slice("bad", "hello-server", **objects.endpoints("nonsense", port=1))
    found = overview.overview(
        state(*service("hello-server", "10.0.0.1"), bad_slice, policy("timeout: 1s"), rates=rates)
    )
    assert (found.services, found.endpoints, found.streams, found.objects) == (1, 1, 0, 1)
    assert [row.name for row in found.bad] == ["hello-server"]
    assert [problem.kind for problem in found.problems] == ["EndpointSlice"]
    assert found.problem_count == 2
    assert found.busiest == ((HELLO, Rate(10.0)),)


def test_a_service_shows_its_security() -> None:
    plain = services.service(state(*service()), HELLO.service)
    assert plain is not None
    assert plain.ports[0].security == ()
    secured = services.service(state(*service(), policy(SECURED)), HELLO.service)
    assert secured is not None
    encryption, allowed = secured.ports[0].security
    assert encryption.startswith("Mutual TLS")
    assert allowed.startswith("servers let in spiffe://")
