"""What routes, policies and hints become in resources: each gRFC by itself."""

from typing import Any

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as manager_pb2,
)
from envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.v3 import (
    client_side_weighted_round_robin_pb2 as weighted_pb2,
)
from google.protobuf import json_format

from xds_server.mesh.budget import cost
from xds_server.model.client import Client
from xds_server.model.service import Endpoint, Port, PortName, Service, ServiceName, SocketAddress
from xds_server.model.tables import CONSUMED, ENDPOINTS, POLICIES, ROUTES, SERVICES, TABLES
from xds_server.model.traffic import (
    Abort,
    Backend,
    CallPolicy,
    Delay,
    FailurePercentage,
    Fault,
    Header,
    Match,
    OutlierDetection,
    Path,
    PathType,
    Policy,
    Retry,
    RingHash,
    RouteScope,
    Rule,
    SuccessRate,
    WeightedRoundRobin,
)
from xds_server.resources.builders import builder
from xds_server.resources.lookup import Lookup
from xds_server.resources.names import parse_unavailable
from xds_server.resources.types import Key, ResourceType

WEB = ServiceName("shop", "web")
PORT = PortName(WEB, 80)
V2 = PortName(ServiceName("shop", "v2"), 80)
MESSAGES = {
    ResourceType.LISTENER: listener_pb2.Listener,
    ResourceType.ROUTE: route_pb2.RouteConfiguration,
    ResourceType.CLUSTER: cluster_pb2.Cluster,
    ResourceType.ENDPOINTS: endpoint_pb2.ClusterLoadAssignment,
}


SHOP = Client("shop")


def look(*, routes=None, policy=None, endpoints=(), client=SHOP):
    tables: dict[Any, dict[Any, Any]] = {table: {} for table in TABLES}
    tables[SERVICES][WEB] = Service(WEB, (Port("", 80, is_grpc=True),))
    tables[ENDPOINTS][PORT] = tuple(sorted(endpoints))
    for namespace, found in (routes or {}).items():
        tables[ROUTES][RouteScope(PORT, namespace)] = found
        if namespace:
            tables[CONSUMED][PORT] = True
    if policy is not None:
        tables[POLICIES][PORT] = policy
    return Lookup(tables, client)


def build(type_, lookup, name="web.shop:80"):
    found = builder(Key(type_, name), cluster_domain="cluster.local", load_reports=False)
    assert found
    resource = found(lookup)
    assert resource
    return MESSAGES[type_].FromString(resource.body)


def route(**given):
    """The routes, as JSON."""
    [host] = build(ResourceType.ROUTE, look(**given)).virtual_hosts
    return [json_format.MessageToDict(each) for each in host.routes]


def rules(*found):
    return {"": found}


def cluster(policy=None):
    return json_format.MessageToDict(build(ResourceType.CLUSTER, look(policy=policy)))


def filters(**given):
    listener = build(ResourceType.LISTENER, look(**given))
    manager = manager_pb2.HttpConnectionManager.FromString(listener.api_listener.api_listener.value)
    return [each.name for each in manager.http_filters]


# ---- routes (A28) ----


def test_without_routes_everything_goes_to_the_port():
    assert route() == [{"match": {"prefix": ""}, "route": {"cluster": "web.shop:80"}}]


def test_weights():
    [found] = route(routes=rules(Rule(Match(), (Backend(PORT, 90), Backend(V2, 10)))))
    assert found["route"]["weightedClusters"]["clusters"] == [
        {"name": "web.shop:80", "weight": 90},
        {"name": "v2.shop:80", "weight": 10},
    ]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (Path(PathType.EXACT, "/a.B/C"), {"path": "/a.B/C"}),
        (Path(PathType.PREFIX, "/a.B/"), {"prefix": "/a.B/"}),
        (Path(PathType.REGEX, "/(?:a)/[^/]+"), {"safeRegex": {"regex": "/(?:a)/[^/]+"}}),
    ],
)
def test_paths(path, expected):
    assert route(routes=rules(Rule(Match(path), (Backend(PORT),))))[0]["match"] == expected


def test_headers():
    match = Match(headers=(Header("x-user", "ann"), Header("x-team", "a|b", is_regex=True)))
    [found] = route(routes=rules(Rule(match, (Backend(PORT),))))
    assert found["match"]["headers"] == [
        {"name": "x-user", "stringMatch": {"exact": "ann"}},
        {"name": "x-team", "stringMatch": {"safeRegex": {"regex": "a|b"}}},
    ]


def test_consumer_rules_replace_those_for_all_in_their_namespace():
    routes = {"": (Rule(Match(), (Backend(PORT),)),), "other": (Rule(Match(), (Backend(V2),)),)}
    seen = {
        namespace: route(routes=routes, client=Client(namespace))[0]["route"]["cluster"]
        for namespace in ("shop", "other", "third")
    }
    assert seen == {"shop": "web.shop:80", "other": "v2.shop:80", "third": "web.shop:80"}


def test_without_a_producer_others_keep_the_implicit_route():
    routes = {"other": (Rule(Match(), (Backend(V2),)),)}
    assert route(routes=routes)[0]["route"] == {"cluster": "web.shop:80"}


def test_the_namespace_of_the_client_counts_only_if_there_are_consumers():
    lookup = look(routes=rules(Rule(Match(), (Backend(PORT),))))
    build(ResourceType.ROUTE, lookup)
    build(ResourceType.LISTENER, lookup)
    assert lookup.traits == set()
    lookup = look(routes={"other": (Rule(Match(), (Backend(V2),)),)})
    build(ResourceType.ROUTE, lookup)
    assert lookup.traits == {"namespace"}


def test_a_client_with_rules_of_its_own_does_not_depend_on_those_for_all():
    mine = (Rule(Match(), (Backend(V2),)),)
    lookup = look(routes={"other": mine, "third": mine}, client=Client("other"))
    build(ResourceType.ROUTE, lookup)
    read = {entry.key for entry in lookup.entries if entry.table is ROUTES}
    assert read == {RouteScope(PORT, "other")}


def test_the_bytes_of_routes_are_never_more_than_their_cost():
    longest = PortName(ServiceName("n" * 63, "s" * 63), 65_535)
    call = CallPolicy(
        86_399.999,
        Retry(
            ("CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "RESOURCE_EXHAUSTED", "UNAVAILABLE"), 4, 8640.001
        ),
        Fault(Abort("UNAUTHENTICATED", 100), Delay(86_399.999, 100)),
    )
    policy = Policy(call=call, load_balancing=RingHash("h" * 256))
    for parts in range(17):
        match = Match(
            Path(PathType.REGEX, "/a" * (1 + 100 * parts)),
            tuple(Header(f"h{n}", "v" * 200, is_regex=True) for n in range(parts)),
        )
        backends = tuple(Backend(longest, 1_000_000) for _ in range(parts or 1))
        found = rules(Rule(match, backends, call))
        [host] = build(ResourceType.ROUTE, look(routes=found, policy=policy)).virtual_hosts
        assert host.routes[0].ByteSize() + 3 <= cost(found[""]).bytes


# ---- call policies (A31, A44, A33) ----


def test_a_rule_wins_over_the_service_field_by_field():
    policy = Policy(call=CallPolicy(timeout=10, retry=Retry(("UNAVAILABLE",), 2, 0.05)))
    routes = rules(
        Rule(Match(), (Backend(PORT),), CallPolicy(timeout=30)),
        Rule(Match(), (Backend(V2),), CallPolicy(timeout=0)),
    )
    first, second = route(routes=routes, policy=policy)
    assert first["route"]["maxStreamDuration"] == {"maxStreamDuration": "30s"}
    assert first["route"]["retryPolicy"]["numRetries"] == 2
    assert "maxStreamDuration" not in second["route"]
    assert second["route"]["retryPolicy"] == first["route"]["retryPolicy"]


def test_retries():
    policy = Policy(call=CallPolicy(retry=Retry(("RESOURCE_EXHAUSTED", "UNAVAILABLE"), 4, 0.025)))
    assert route(policy=policy)[0]["route"]["retryPolicy"] == {
        "retryOn": "resource-exhausted,unavailable",
        "numRetries": 4,
        "retryBackOff": {"baseInterval": "0.025s", "maxInterval": "0.250s"},
    }


def test_faults_are_in_the_route_and_their_filter_in_the_listener():
    fault = Fault(Abort("UNAVAILABLE", 10), Delay(0.1, 20))
    [host] = build(ResourceType.ROUTE, look(policy=Policy(call=CallPolicy(fault=fault)))).virtual_hosts
    config = fault_pb2.HTTPFault.FromString(host.routes[0].typed_per_filter_config["fault"].value)
    assert json_format.MessageToDict(config) == {
        "abort": {"grpcStatus": 14, "percentage": {"numerator": 10}},
        "delay": {"fixedDelay": "0.100s", "percentage": {"numerator": 20}},
    }
    assert filters(policy=Policy(call=CallPolicy(fault=fault))) == ["fault", "router"]
    assert filters(routes=rules(Rule(Match(), (Backend(PORT),), CallPolicy(fault=fault)))) == [
        "fault",
        "router",
    ]
    assert filters() == filters(policy=Policy(call=CallPolicy(timeout=9))) == ["router"]


def test_a_fault_that_only_others_see_does_not_change_the_listener():
    fault = CallPolicy(fault=Fault(Abort("INTERNAL", 1)))
    routes = {"other": (Rule(Match(), (Backend(PORT),), fault),)}
    assert filters(routes=routes) == ["router"]
    assert filters(routes=routes, client=Client("other")) == ["fault", "router"]


# ---- clusters (A32, A50, A42, A58) ----


def test_circuit_breaking():
    assert cluster(Policy(max_concurrent_requests=7))["circuitBreakers"] == {
        "thresholds": [{"maxRequests": 7}]
    }
    assert cluster(Policy(max_concurrent_requests=0))["circuitBreakers"] == {
        "thresholds": [{"maxRequests": 0}]
    }
    assert "circuitBreakers" not in cluster()


def test_the_bound_comes_with_load_reports():
    # Without them, grpc-java does not count requests.
    assert cluster(Policy(max_concurrent_requests=7))["lrsServer"] == {"self": {}}


def test_outlier_detection():
    found = cluster(Policy(outlier_detection=OutlierDetection(failure_percentage=FailurePercentage())))
    assert found["outlierDetection"] == {
        "interval": "10s",
        "baseEjectionTime": "30s",
        "maxEjectionTime": "300s",
        "maxEjectionPercent": 10,
        "enforcingConsecutive5xx": 0,
        "enforcingConsecutiveGatewayFailure": 0,
        "enforcingFailurePercentage": 100,
        "failurePercentageThreshold": 85,
        "failurePercentageMinimumHosts": 5,
        "failurePercentageRequestVolume": 50,
        "enforcingSuccessRate": 0,
    }
    found = cluster(Policy(outlier_detection=OutlierDetection(success_rate=SuccessRate())))[
        "outlierDetection"
    ]
    assert (found["enforcingSuccessRate"], found["enforcingFailurePercentage"]) == (100, 0)
    assert (found["successRateStdevFactor"], found["successRateRequestVolume"]) == (1900, 100)


def test_ring_hash():
    policy = Policy(load_balancing=RingHash("x-user", 2048))
    found = cluster(policy)
    assert found["lbPolicy"] == "RING_HASH"
    assert found["ringHashLbConfig"] == {"minimumRingSize": "2048"}
    assert "loadBalancingPolicy" not in found
    assert route(policy=policy)[0]["route"]["hashPolicy"] == [{"header": {"headerName": "x-user"}}]
    assert cluster(Policy(load_balancing=RingHash("x-user")))["ringHashLbConfig"] == {}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (Policy(load_balancing=RingHash("x-user")), [("", 3)]),
        (Policy(load_balancing=WeightedRoundRobin()), [("a", 2), ("b", 1)]),
        (None, [("a", 2), ("b", 1)]),
    ],
)
def test_on_a_ring_the_weight_of_a_zone_does_not_count(policy, expected):
    endpoints = [endpoint(1, "a"), endpoint(2, "a"), endpoint(3, "b")]
    found = build(ResourceType.ENDPOINTS, look(policy=policy, endpoints=endpoints))
    assert [(e.locality.zone, e.load_balancing_weight.value) for e in found.endpoints] == expected
    assert [len(e.lb_endpoints) for e in found.endpoints] == [weight for _, weight in expected]


def test_endpoints_depend_on_the_policy_only_if_they_are_in_several_zones():
    for zones, expected in (("aa", {ENDPOINTS}), ("", {ENDPOINTS}), ("ab", {ENDPOINTS, POLICIES})):
        lookup = look(endpoints=[endpoint(number, zone) for number, zone in enumerate(zones, 1)])
        build(ResourceType.ENDPOINTS, lookup)
        assert {entry.table for entry in lookup.entries} == expected


def test_weighted_round_robin_falls_back_to_round_robin():
    found = build(
        ResourceType.CLUSTER,
        look(policy=Policy(load_balancing=WeightedRoundRobin(10, 1, out_of_band_reporting_period=5))),
    )
    first, last = (p.typed_extension_config for p in found.load_balancing_policy.policies)
    config = weighted_pb2.ClientSideWeightedRoundRobin.FromString(first.typed_config.value)
    assert json_format.MessageToDict(config) == {
        "enableOobLoadReport": True,
        "oobReportingPeriod": "5s",
        "blackoutPeriod": "10s",
        "weightUpdatePeriod": "1s",
    }
    assert last.typed_config.type_url.endswith("RoundRobin")
    assert found.lb_policy == cluster_pb2.Cluster.ROUND_ROBIN


# ---- backends that can't be reached ----


@pytest.mark.parametrize(
    "name", ["BackendNotFound: Service shop/gone", "InvalidKind: x", "NoBackend: rule 0"]
)
def test_an_unavailable_backend_has_a_cluster_without_endpoints(name):
    lookup = look()
    found = build(ResourceType.CLUSTER, lookup, name)
    assert (found.name, found.eds_cluster_config.service_name) == (name, name)
    assignment = build(ResourceType.ENDPOINTS, lookup, name)
    assert assignment.cluster_name == name
    assert not assignment.endpoints
    [drop] = assignment.policy.drop_overloads
    assert (drop.category, drop.drop_percentage.numerator) == (name, 100)
    assert not lookup.entries
    target = parse_unavailable(name)
    assert target
    [found] = route(routes=rules(Rule(Match(), (Backend(target),))))
    assert found["route"] == {"cluster": name}


@pytest.mark.parametrize(
    "name",
    [
        "Other: x",
        "BackendNotFound:x",
        "BackendNotFound: \n",
        "BackendNotFound: ",
        "BackendNotFound: " + "x" * 384,
    ],
)
def test_other_names_have_no_cluster(name):
    assert (
        builder(Key(ResourceType.CLUSTER, name), cluster_domain="cluster.local", load_reports=False) is None
    )


def test_an_unavailable_backend_has_no_route():
    assert (
        builder(
            Key(ResourceType.ROUTE, "BackendNotFound: x"), cluster_domain="cluster.local", load_reports=False
        )
        is None
    )


# ---- zones ----


def endpoint(number, zone, *, zones=(), nodes=()):
    return Endpoint(zone, (SocketAddress(f"10.0.0.{number}", 80),), tuple(zones), tuple(nodes))


def ranked(endpoints, **client):
    """By priority: the last numbers of the addresses."""
    found = build(ResourceType.ENDPOINTS, look(endpoints=endpoints, client=Client("shop", **client)))
    result: dict[int, list[int]] = {}
    for locality in found.endpoints:
        numbers = [
            int(e.endpoint.address.socket_address.address.split(".")[-1]) for e in locality.lb_endpoints
        ]
        assert locality.load_balancing_weight.value == len(numbers)
        result.setdefault(locality.priority, []).extend(numbers)
    places = [(each.priority, each.locality.zone) for each in found.endpoints]
    assert len(set(places)) == len(places)
    assert sorted(result) == list(range(len(result)))
    return [sorted(result[priority]) for priority in sorted(result)]


HINTED = [endpoint(1, "a", zones="a"), endpoint(2, "b", zones="b"), endpoint(3, "b", zones=("a", "b"))]


def test_endpoints_hinted_for_the_zone_come_first():
    assert ranked(HINTED, zone="a") == [[1, 3], [2]]
    assert ranked(HINTED, zone="b") == [[2, 3], [1]]


def test_without_a_zone_or_a_hint_for_it_all_are_alike():
    assert ranked(HINTED) == ranked(HINTED, zone="c") == [[1, 2, 3]]


def test_hints_count_only_if_all_endpoints_have_one():
    assert ranked([*HINTED, endpoint(4, "a")], zone="a") == [[1, 2, 3, 4]]


def test_the_node_comes_before_the_zone():
    endpoints = [
        endpoint(1, "a", zones="a", nodes=["n1"]),
        endpoint(2, "a", zones="a", nodes=["n2"]),
        endpoint(3, "b", zones="b", nodes=["n3"]),
    ]
    assert ranked(endpoints, zone="a", node="n1") == [[1], [2], [3]]
    assert ranked(endpoints, zone="b", node="n1") == [[1], [3], [2]]
    assert ranked(endpoints, zone="a", node="n9") == [[1, 2], [3]]
    assert ranked(endpoints, node="n3") == [[3], [1, 2]]


def test_localities_of_different_priorities_differ():
    # grpc-java keeps endpoints by locality: of two with an equal one, the first would be lost.
    endpoints = [endpoint(1, "a", zones="a", nodes=["n1"]), endpoint(2, "a", zones="a", nodes=["n2"])]
    found = build(
        ResourceType.ENDPOINTS, look(endpoints=endpoints, client=Client("shop", zone="a", node="n1"))
    )
    localities = [each.locality.SerializeToString(deterministic=True) for each in found.endpoints]
    assert len(set(localities)) == len(localities) == 2


def test_node_hints_count_without_zone_hints():
    endpoints = [endpoint(1, "", nodes=["n1"]), endpoint(2, "", nodes=["n2"])]
    assert ranked(endpoints, zone="a", node="n2") == [[2], [1]]


def test_zones_on_a_ring_are_priorities_without_localities():
    lookup = look(
        policy=Policy(load_balancing=RingHash("x-user")), endpoints=HINTED, client=Client("shop", "a")
    )
    found = build(ResourceType.ENDPOINTS, lookup)
    assert [(e.priority, len(e.lb_endpoints)) for e in found.endpoints] == [(0, 2), (1, 1)]


def test_a_priority_that_has_all_endpoints_is_the_only_one():
    assert ranked([endpoint(1, "a", zones="a"), endpoint(2, "a", zones="a")], zone="a") == [[1, 2]]


@pytest.mark.parametrize(
    ("endpoints", "traits"),
    [
        ([endpoint(1, "a"), endpoint(2, "b")], set()),
        ([], set()),
        (HINTED, {"zone"}),
        ([endpoint(1, "a", nodes=["n1"])], {"node"}),
        ([endpoint(1, "a", zones="a", nodes=["n1"])], {"node", "zone"}),
    ],
)
def test_only_hints_make_an_assignment_depend_on_the_client(endpoints, traits):
    lookup = look(endpoints=endpoints)
    build(ResourceType.ENDPOINTS, lookup)
    assert lookup.traits == traits
