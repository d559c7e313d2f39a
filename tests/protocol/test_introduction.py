"""RouteScope whose clusters change, and clients whose zone changes: what a warm client is sent, in which order."""

import pytest

from tests.protocol.client import CDS, EDS, LDS, MESSAGES, RDS, Client, find, make_cache, publish, service
from xds_server.model.client import Client as Identity
from xds_server.model.service import Endpoint, PortName, ServiceName, SocketAddress
from xds_server.model.tables import ENDPOINTS, NODE_ZONES, ROUTES, Entry
from xds_server.model.traffic import Backend, Match, RouteScope, Rule
from xds_server.resources.types import Key

WEB = "web.shop:80"
PORT = PortName(ServiceName("shop", "web"), 80)


def split(**weights):
    """A route of web:80 that splits its requests between ports 80 of these services."""
    backends = tuple(Backend(PortName(ServiceName("shop", n), 80), w) for n, w in weights.items())
    return {Entry(ROUTES, RouteScope(PORT)): (Rule(Match(), backends),)}


@pytest.fixture
def cache():
    cache = make_cache()
    publish(cache, service("web", "10.0.0.1"), service("v2", "10.0.0.2"), service("v3", "10.0.0.3"))
    return cache


@pytest.fixture
def client(cache):
    client = Client(cache)
    for kind in (LDS, RDS, CDS, EDS):
        client.send(kind, [WEB])
        client.receive()
    return client


def weights(client):
    """By cluster, the weight in the route that takes all requests."""
    route = MESSAGES[RDS].FromString(client.held[RDS].resources[WEB]).virtual_hosts[0].routes[0]
    if route.route.cluster:
        return {route.route.cluster: 1}
    return {c.name: c.weight.value for c in route.route.weighted_clusters.clusters}


def named(client):
    """All clusters that the route names."""
    found = set()
    for route in MESSAGES[RDS].FromString(client.held[RDS].resources[WEB]).virtual_hosts[0].routes:
        found |= {c.name for c in route.route.weighted_clusters.clusters} | {route.route.cluster} - {""}
    return found


def pass_time(client, *, checks=100):
    """Lets the session check introductions until there are none, or so many times."""
    while checks and client.session.check_introductions():
        checks -= 1


def set_up(client, *names):
    """The client subscribes to clusters and their endpoints, as it does for those that a route names."""
    client.send(CDS, names)
    client.send(EDS, names)
    client.receive()


def is_final(cache, client):
    return client.held[RDS].resources[WEB] == find(cache, RDS, WEB).body


def test_a_new_cluster_is_named_before_it_gets_requests(cache, client):
    cache.publish(split(web=90, v2=10))
    response = client.next()
    assert response.introduces
    client.session.request(client.take(response)[2])
    assert named(client) == {WEB, "v2.shop:80"}
    assert weights(client) == {WEB: 1}
    client.send(CDS, [WEB, "v2.shop:80"])
    client.send(EDS, [WEB, "v2.shop:80"])
    assert client.receive() == [(CDS, ["v2.shop:80", WEB]), (EDS, ["v2.shop:80"])]
    assert client.session.check_introductions()
    assert client.receive() == [], "an acknowledgement alone is too early"
    pass_time(client, checks=3)
    assert client.receive() == [(RDS, [WEB])]
    assert weights(client) == {WEB: 90, "v2.shop:80": 10}
    assert is_final(cache, client)


def test_weights_of_known_clusters_change_in_one_step(cache, client):
    cache.publish(split(web=90, v2=10))
    client.receive()
    pass_time(client)
    client.receive()
    cache.publish(split(web=10, v2=90))
    response = client.next()
    assert not response.introduces
    client.take(response)
    assert is_final(cache, client)


def test_a_cold_client_gets_the_route_at_once(cache):
    cache.publish(split(web=90, v2=10))
    client = Client(cache)
    client.send(RDS, [WEB])
    client.receive()
    assert is_final(cache, client)


def test_changes_during_an_introduction_wait_for_its_end(cache, client):
    cache.publish(split(v2=1))
    client.receive()
    cache.publish(split(v2=1, web=5))
    assert client.receive() == []
    pass_time(client)
    client.receive()
    assert is_final(cache, client)


def test_what_was_introduced_comes_before_yet_another_cluster(cache, client):
    """Or a route that names a new one every few moments would never arrive."""
    cache.publish(split(v2=1))
    client.receive()
    set_up(client, WEB, "v2.shop:80")
    cache.publish(split(v3=1))
    assert client.receive() == []
    pass_time(client, checks=3)
    assert client.receive() == [(RDS, [WEB])]
    assert weights(client) == {"v2.shop:80": 1}
    pass_time(client, checks=3)
    assert client.receive() == [(RDS, [WEB])]
    assert weights(client) == {"v2.shop:80": 1}
    assert named(client) == {"v2.shop:80", "v3.shop:80"}
    pass_time(client)
    client.receive()
    assert is_final(cache, client)
    assert named(client) == {"v3.shop:80"}


@pytest.mark.parametrize("missing", [RDS, CDS, EDS])
def test_a_client_that_is_slow_to_set_up_gets_the_time(cache, client, missing):
    cache.publish(split(web=90, v2=10))
    answers = {}
    while (response := client.next()) is not None:
        kind, _, answers[RDS] = client.take(response)
    for kind in (CDS, EDS):
        client.send(kind, [WEB, "v2.shop:80"])
        _, _, answers[kind] = client.take(client.next())
    for kind, answer in answers.items():
        if kind is not missing:
            client.session.request(answer)
    pass_time(client, checks=10)
    assert client.next() is None
    client.session.request(answers[missing])
    pass_time(client, checks=3)
    assert client.receive() == [(RDS, [WEB])]
    assert is_final(cache, client)


def test_a_cluster_that_is_never_set_up_delays_its_route_and_no_more(cache, client):
    cache.publish(split(web=90, gone=10))
    client.receive()
    pass_time(client, checks=30)
    assert client.receive() == []
    pass_time(client, checks=30)
    assert client.receive() == [(RDS, [WEB])]
    assert is_final(cache, client)


def test_each_route_has_the_time_that_it_needs(cache, client):
    """A route that was introduced a moment ago does not follow one that has waited long enough."""
    api = PortName(ServiceName("shop", "api"), 80)
    publish(cache, service("api", "10.0.0.4"))
    client.send(RDS, [WEB, "api.shop:80"])
    client.receive()
    set_up(client, WEB, "v2.shop:80", "v3.shop:80")
    cache.publish(split(v2=1))
    client.receive()
    pass_time(client, checks=2)
    cache.publish(
        {
            Entry(ROUTES, RouteScope(api)): (
                Rule(Match(), (Backend(PortName(ServiceName("shop", "v3"), 80), 1),)),
            )
        }
    )
    assert client.receive() == [(RDS, ["api.shop:80"])]
    pass_time(client, checks=1)
    assert client.receive() == [(RDS, [WEB])]
    pass_time(client, checks=2)
    assert client.receive() == [(RDS, ["api.shop:80"])]


def test_a_cluster_is_not_removed_while_its_route_is_being_changed(cache, client):
    cache.publish(split(v2=1))
    client.receive()
    pass_time(client)
    client.send(CDS, [WEB, "v2.shop:80"])
    client.receive()
    publish(cache, service("v3", "10.0.0.3"), gone=["v2"])
    cache.publish(split(v3=1))
    assert [kind for kind, _ in client.receive()] == [RDS]
    assert "v2.shop:80" in client.held[CDS].resources
    pass_time(client)
    assert client.receive() == [(RDS, [WEB]), (CDS, [WEB])]


def test_a_name_that_is_asked_for_again_is_sent_as_it_is(cache, client):
    cache.publish(split(v2=1))
    client.receive()
    client.send(RDS, [])
    client.send(RDS, [WEB])
    client.receive()
    assert is_final(cache, client)
    pass_time(client)
    assert client.receive() == []


def test_after_the_introduction_nothing_is_sent_if_the_route_went_back(cache, client):
    original = find(cache, RDS, WEB).body
    cache.publish(split(v2=1))
    client.receive()
    cache.publish({Entry(ROUTES, RouteScope(PORT)): None})
    pass_time(client)
    client.receive()
    assert client.held[RDS].resources[WEB] == original


def test_after_a_rejection_the_route_is_sent_as_it_is(cache, client):
    cache.publish(split(v2=1))
    client.receive(refuse=(RDS,))
    pass_time(client)
    client.receive(refuse=(RDS,))
    cache.publish(split(v3=1))
    response = client.next()
    assert not response.introduces, "a first step would repeat what was rejected"
    client.take(response)
    assert is_final(cache, client)


def test_removals_go_out_even_if_the_route_is_given_up_meanwhile(cache, client):
    client.send(CDS, [WEB, "v3.shop:80"])
    client.receive()
    cache.publish(split(v2=1))
    client.receive()
    publish(cache, gone=["v3"])
    assert client.receive() == []
    client.send(RDS, [])
    pass_time(client)
    assert client.woken
    assert client.receive() == [(CDS, [WEB])]


# ---- zones ----


def hinted(*zones):
    return {
        Entry(ENDPOINTS, PORT): tuple(
            Endpoint(zone, (SocketAddress(f"10.0.0.{n}", 8080),), for_zones=(zone,))
            for n, zone in enumerate(zones, 1)
        )
    }


def priorities(body):
    found = MESSAGES[EDS].FromString(body)
    return {locality.locality.zone: locality.priority for locality in found.endpoints}


def located(cache, node):
    client = Client(cache)
    request = client.ask(EDS, [WEB])
    request.node.metadata.update({"NODE_NAME": node})
    client.session.request(request)
    client.receive()
    return client


def test_a_client_is_in_the_zone_of_its_node(cache):
    cache.publish({**hinted("a", "b"), Entry(NODE_ZONES, "n1"): "b"})
    client = located(cache, "n1")
    assert priorities(client.held[EDS].resources[WEB]) == {"b": 0, "a": 1}


def test_the_zone_that_a_client_says_wins(cache):
    cache.publish({Entry(NODE_ZONES, "n1"): "b"})
    assert cache.locate(Identity("shop", "a", "n1")).zone == "a"
    assert cache.locate(Identity("shop", "", "n1")).zone == "b"
    assert cache.locate(Identity("shop", "", "n2")).zone == ""


def test_a_client_follows_its_node_to_another_zone(cache):
    cache.publish(hinted("a", "b"))
    client = located(cache, "n1")
    assert priorities(client.held[EDS].resources[WEB]) == {"a": 0, "b": 0}
    for zone, expected in (("a", {"a": 0, "b": 1}), ("b", {"b": 0, "a": 1})):
        cache.publish({Entry(NODE_ZONES, "n1"): zone})
        client.session.relocate()
        assert client.receive() == [(EDS, [WEB])]
        assert priorities(client.held[EDS].resources[WEB]) == expected
    cache.publish(hinted("b", "b"))
    assert client.receive() == [(EDS, [WEB])], "it stays subscribed"


def test_a_closed_stream_does_not_relocate(cache):
    cache.publish(hinted("a", "b"))
    client = located(cache, "n1")
    client.session.close()
    cache.publish({Entry(NODE_ZONES, "n1"): "a"})
    client.session.relocate()
    assert list(cache.resources()) == []


def test_clients_of_one_zone_share_an_assignment(cache):
    cache.publish({**hinted("a", "b"), **{Entry(NODE_ZONES, f"n{i}"): "ab"[i % 2] for i in range(6)}})
    clients = [located(cache, f"n{i}") for i in range(6)]
    assert clients
    found = [traits for key, traits, _, _ in cache.resources() if key == Key(EDS, WEB)]
    assert sorted(traits["zone"] for traits in found) == ["a", "b"]
