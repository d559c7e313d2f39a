"""The form of a route in which clusters are named before they get requests."""

from typing import Any

from envoy.config.route.v3 import route_pb2
from hypothesis import given
from hypothesis import strategies as st

from xds_server.model.client import Client
from xds_server.model.service import Port, PortName, Service, ServiceName
from xds_server.model.tables import ROUTES, SERVICES, TABLES
from xds_server.model.traffic import Backend, Match, Path, PathType, RouteScope, Rule
from xds_server.resources import route
from xds_server.resources.introduction import PATH, introduce
from xds_server.resources.lookup import Lookup

WEB = PortName(ServiceName("shop", "web"), 80)


def port(name):
    return PortName(ServiceName("shop", name), 80)


def routes(*rules):
    """A RouteConfiguration with a rule for each of the given groups of clusters; the last takes every request."""
    tables: dict[Any, dict[Any, Any]] = {table: {} for table in TABLES}
    tables[SERVICES][WEB.service] = Service(WEB.service, (Port("", 80, is_grpc=True),))
    tables[ROUTES][RouteScope(WEB)] = tuple(
        Rule(
            Match(Path(PathType.EXACT, f"/shop.Shop/Method{n}")) if n < len(rules) else Match(),
            tuple(Backend(port(name), 10) for name in names),
        )
        for n, names in enumerate(rules, 1)
    )
    found = route.build(WEB, Lookup(tables, Client("shop")))
    assert found
    return found


def rules_of(resource):
    [host] = route_pb2.RouteConfiguration.FromString(resource.body).virtual_hosts
    return list(host.routes)


def introduced(resource):
    """The clusters that the last rule introduces; it must be the only rule that does."""
    *others, last = rules_of(resource)
    assert PATH not in [rule.match.path for rule in others]
    assert last.match.path == PATH
    assert all(cluster.weight.value == 1 for cluster in last.route.weighted_clusters.clusters)
    return [cluster.name for cluster in last.route.weighted_clusters.clusters]


def test_known_clusters_need_no_introduction():
    sent = routes(["web", "v2"])
    assert introduce(sent, sent) is None
    assert introduce(sent, routes(["v2"])) is None
    assert introduce(sent, routes(["v2"], ["web"])) is None


def test_new_clusters_are_named_in_one_more_rule():
    sent = routes(["web"], ["web", "v2"])
    found = introduce(sent, routes(["v4", "v3"], ["v2"]))
    assert found
    step, clusters = found
    assert clusters == {"v3.shop:80", "v4.shop:80"}
    assert step.name == sent.name
    assert step.version != sent.version
    assert rules_of(step)[:-1] == rules_of(sent)
    assert introduced(step) == ["v3.shop:80", "v4.shop:80"]


def test_after_the_introduction_nothing_is_new():
    wanted = routes(["web", "v2"])
    step = introduce(routes(["web"]), wanted)
    assert step
    assert introduce(step.route, wanted) is None


def test_the_rule_of_an_earlier_introduction_is_replaced_and_its_clusters_stay():
    sent = routes(["web"])
    first = introduce(sent, routes(["v2"]))
    assert first
    second = introduce(first.route, routes(["v3"]))
    assert second
    assert rules_of(second.route)[:-1] == rules_of(sent)
    assert introduced(second.route) == ["v2.shop:80", "v3.shop:80"]


NAMES = st.lists(st.sampled_from(["web", "v2", "v3", "v4"]), min_size=1, unique=True)
GROUPS = st.lists(NAMES, min_size=1, max_size=3)


@given(st.lists(GROUPS, min_size=1, max_size=6))
def test_however_a_route_changes_it_is_sent_soon(changes):
    """Each change is made while the one before is being introduced."""
    sent, introductions = routes(["web"]), 0
    for change in changes:
        wanted = routes(*change)
        if (step := introduce(sent, wanted)) is None:
            sent, introductions = wanted, 0
        else:
            assert step == introduce.__wrapped__(sent, wanted)
            sent, introductions = step.route, introductions + 1
        assert introductions <= 3, "there are three clusters that may be new"
