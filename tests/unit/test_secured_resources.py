"""Encryption and authorization in resources: of clients in Clusters, of servers in Listeners."""

from typing import Any

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as manager_pb2,
)
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2

from xds_server.client_log import ip
from xds_server.model.client import Client
from xds_server.model.service import PodPort, Port, PortName, Service, ServiceName, SocketAddress
from xds_server.model.tables import (
    ANY_NAMESPACE,
    ENDPOINTS,
    POLICIES,
    READ,
    SECURED,
    SERVERS,
    SERVICES,
    TABLES,
)
from xds_server.model.traffic import CLOSED, Authorization, Permission, Policy, Tls
from xds_server.resources.builders import builder
from xds_server.resources.lookup import Lookup
from xds_server.resources.names import parse_server
from xds_server.resources.types import Key, ResourceType

WEB, ALSO_WEB = (PortName(ServiceName("shop", name), 80) for name in ("web", "web-all"))
NAME = "grpc/server?xds.resource.listening_address=0.0.0.0:8080"
POD = Client("shop", pod="web-1", address="10.0.0.1")
MUTUAL = Tls(is_mutual=True, subject_alt_names=("spiffe://cluster.local/ns/shop/sa/web", "web.shop"))
SIMPLE = MUTUAL._replace(is_mutual=False, provider="ours")
CART = Authorization((Permission(("spiffe://cluster.local/ns/shop/sa/cart",), ("/shop.Web/Get",)),))
ADMINS = Authorization((Permission(("spiffe://cluster.local/ns/admin/*",), ("/shop.Web/*",)),))


def look(client=POD, *, policies=None, servers=None, secured=(), read=()):
    tables: dict[Any, dict[Any, Any]] = {table: {} for table in TABLES}
    for port in (WEB, ALSO_WEB):
        tables[SERVICES][port.service] = Service(port.service, (Port("", 80, is_grpc=True),))
        tables[ENDPOINTS][port] = ()
    tables[POLICIES] = dict(policies or {})
    known: dict[PodPort | SocketAddress, tuple[PortName, ...]] = {
        PodPort("shop", "web-1", 8080): (WEB,),
        SocketAddress("10.0.0.1", 8080): (WEB,),
    }
    tables[SERVERS] = dict(known if servers is None else servers)
    tables[SECURED] = dict.fromkeys(secured, True)
    tables[READ] = dict.fromkeys([*read, ANY_NAMESPACE] if read else (), True)
    return Lookup(tables, client)


def build(type_, name, lookup):
    found = builder(Key(type_, name), cluster_domain="cluster.local", load_reports=False)
    assert found
    return found(lookup)


def cluster(policy):
    resource = build(ResourceType.CLUSTER, str(WEB), look(policies={WEB: policy}))
    return resource and cluster_pb2.Cluster.FromString(resource.body)


def listener(lookup, name=NAME):
    resource = build(ResourceType.LISTENER, name, lookup)
    return resource and listener_pb2.Listener.FromString(resource.body)


def transport(found):
    """The TLS of a server's Listener; None if it has none."""
    [chain] = found.filter_chains
    if not chain.HasField("transport_socket"):
        return None
    context = tls_pb2.DownstreamTlsContext()
    assert chain.transport_socket.typed_config.Unpack(context)
    return context


def manager_of(found):
    """The connection manager of a server's Listener."""
    [chain] = found.filter_chains
    [only] = chain.filters
    manager = manager_pb2.HttpConnectionManager()
    assert only.typed_config.Unpack(manager)
    return manager


def answers(found):
    """Whether a server answers calls, by its routes."""
    [host] = manager_of(found).route_config.virtual_hosts
    return [route.HasField("non_forwarding_action") for route in host.routes]


def rules(found):
    """The rules of each authorization of a server's Listener."""
    manager = manager_of(found)
    *filters, last = manager.http_filters
    assert last.name == "router"
    assert len({each.name for each in filters}) == len(filters)
    result = []
    for each in filters:
        config = rbac_pb2.RBAC()
        assert each.typed_config.Unpack(config)
        result.append(config.rules)
    return result


# ---- clients ----


def test_clients_encrypt_and_check_the_servers_name():
    context = tls_pb2.UpstreamTlsContext()
    assert cluster(Policy(tls=MUTUAL)).transport_socket.typed_config.Unpack(context)
    common = context.common_tls_context
    assert common.tls_certificate_provider_instance.instance_name == "default"
    validation = common.validation_context
    assert validation.ca_certificate_provider_instance.instance_name == "default"
    assert [name.exact for name in validation.match_subject_alt_names] == list(MUTUAL.subject_alt_names)


def test_clients_present_no_certificate_in_simple_mode():
    context = tls_pb2.UpstreamTlsContext()
    assert cluster(Policy(tls=SIMPLE)).transport_socket.typed_config.Unpack(context)
    common = context.common_tls_context
    assert not common.HasField("tls_certificate_provider_instance")
    assert common.validation_context.ca_certificate_provider_instance.instance_name == "ours"


def test_without_tls_nothing_is_said_about_it():
    assert not cluster(Policy()).HasField("transport_socket")


def test_requests_to_a_service_whose_security_can_not_be_read_fail():
    """Clients keep a resource that is deleted: the route has to name another cluster."""
    assert cluster(CLOSED) is None
    lookup = look(policies={WEB: CLOSED})
    resource = build(ResourceType.ROUTE, str(WEB), lookup)
    [host] = route_pb2.RouteConfiguration.FromString(resource.body).virtual_hosts
    [only] = host.routes
    assert only.route.cluster == "InvalidPolicy: Service web.shop:80"
    resource = build(ResourceType.CLUSTER, only.route.cluster, lookup)
    assert cluster_pb2.Cluster.FromString(resource.body).name == only.route.cluster


# ---- servers ----


def test_a_server_whose_security_can_not_be_read_refuses_every_call():
    """A server that is open already keeps its Listener if that is deleted."""
    both = {PodPort("shop", "web-1", 8080): (WEB, ALSO_WEB)}
    closed = listener(look(policies={WEB: CLOSED}, servers=both))
    assert answers(closed) == [False]
    assert transport(closed) is None
    other = Policy(tls=MUTUAL, authorization=CART)
    closed = listener(look(policies={WEB: CLOSED, ALSO_WEB: other}, servers=both))
    assert answers(closed) == [False]
    assert len(rules(closed)) == 1
    assert transport(closed) is not None
    assert answers(listener(look(policies={ALSO_WEB: other}, servers=both))) == [True]


def test_a_server_gets_its_address_and_answers_by_itself():
    found = listener(look())
    assert found.name == NAME
    assert (found.address.socket_address.address, found.address.socket_address.port_value) == (
        "0.0.0.0",
        8080,
    )
    assert transport(found) is None
    assert rules(found) == []


def test_a_server_with_mutual_tls_asks_for_certificates():
    context = transport(listener(look(policies={WEB: Policy(tls=MUTUAL)})))
    assert context.require_client_certificate.value
    common = context.common_tls_context
    assert common.tls_certificate_provider_instance.instance_name == "default"
    assert common.validation_context.ca_certificate_provider_instance.instance_name == "default"


def test_a_server_with_simple_tls_does_not():
    context = transport(listener(look(policies={WEB: Policy(tls=SIMPLE)})))
    assert not context.require_client_certificate.value
    assert context.common_tls_context.tls_certificate_provider_instance.instance_name == "ours"
    assert not context.common_tls_context.HasField("validation_context")


def test_who_may_call_what():
    [found] = rules(listener(look(policies={WEB: Policy(tls=MUTUAL, authorization=CART)})))
    [policy] = found.policies.values()
    assert [principal.authenticated.principal_name.exact for principal in policy.principals] == [
        "spiffe://cluster.local/ns/shop/sa/cart"
    ]
    assert [permission.url_path.path.exact for permission in policy.permissions] == ["/shop.Web/Get"]
    [found] = rules(listener(look(policies={WEB: Policy(tls=MUTUAL, authorization=ADMINS)})))
    [policy] = found.policies.values()
    assert policy.principals[0].authenticated.principal_name.prefix == "spiffe://cluster.local/ns/admin/"
    assert policy.permissions[0].url_path.path.prefix == "/shop.Web/"


def test_the_strictest_of_several_services_counts():
    both = {PodPort("shop", "web-1", 8080): (WEB, ALSO_WEB)}
    policies = {WEB: Policy(tls=SIMPLE), ALSO_WEB: Policy(tls=MUTUAL, authorization=CART)}
    found = listener(look(policies=policies, servers=both))
    assert transport(found).require_client_certificate.value
    assert len(rules(found)) == 1
    policies[WEB] = Policy(tls=MUTUAL, authorization=ADMINS)
    assert len(rules(listener(look(policies=policies, servers=both)))) == 2, "each has to allow a call"
    policies[WEB] = Policy()
    assert transport(listener(look(policies=policies, servers=both))).require_client_certificate.value


def test_a_server_that_no_service_selects_is_served_without_security():
    lookup = look(servers={})
    assert transport(listener(lookup)) is None
    assert not lookup.remark


def test_where_there_are_security_policies_it_waits_and_people_are_told():
    """It may have just started, and its EndpointSlice be on its way: it must not be open until then."""
    lookup = look(servers={}, secured=["shop", ANY_NAMESPACE])
    assert listener(lookup) is None
    assert lookup.remark == (
        "no Service selects the server of pod web-1 in shop, port 8080; it waits, as there are security policies"
    )
    assert listener(look(servers={}, secured=["bank", ANY_NAMESPACE])) is not None


def test_a_server_that_is_known_by_its_address_alone_waits_for_any_policy():
    """Without the name of its pod, nobody knows in which namespace it is."""
    stranger = POD._replace(pod="", address="10.0.0.9")
    lookup = look(stranger, servers={}, secured=["bank", ANY_NAMESPACE])
    assert listener(lookup) is None
    assert lookup.remark.startswith(
        "the server at 10.0.0.9, port 8080 names no pod in its bootstrap; it waits"
    )
    proven = stranger._replace(identity="spiffe://cluster.local/ns/shop/sa/web")
    assert listener(look(proven, servers={}, secured=["bank", ANY_NAMESPACE])) is not None


def test_a_pod_is_not_taken_for_the_one_that_had_its_address():
    """Somebody's slice has the address: an old one of its own namespace, or one of another namespace."""
    new = POD._replace(pod="web-2")
    for stale in (WEB, PortName(ServiceName("bank", "evil"), 80)):
        servers = {SocketAddress("10.0.0.1", 8080): (stale,)}
        assert listener(look(new, servers=servers, secured=["shop", "bank", ANY_NAMESPACE])) is None
    assert listener(look(POD, secured=["shop", ANY_NAMESPACE])) is not None


def test_a_server_whose_namespace_is_not_read_waits():
    lookup = look(servers={}, read=["bank"])
    assert listener(lookup) is None
    assert "its namespace is none of NAMESPACES" in lookup.remark
    assert listener(look(servers={}, read=["shop"])) is not None
    nameless = POD._replace(pod="")
    assert listener(look(nameless, servers={}, read=["shop"])) is None


def test_a_pod_of_a_wrong_name_at_a_secured_address_waits():
    wrong = POD._replace(namespace="shopp")
    lookup = look(wrong, policies={WEB: Policy(tls=MUTUAL)}, secured=["shop", ANY_NAMESPACE])
    assert listener(lookup) is None
    assert "NAMESPACE in node.metadata of its bootstrap may be wrong" in lookup.remark


def test_an_address_that_several_namespaces_claim_leads_to_nobody():
    """Whoever may write EndpointSlices can name any address."""
    evil = PortName(ServiceName("evil", "x"), 80)
    servers = {SocketAddress("10.0.0.1", 8080): (evil, WEB)}
    nameless = POD._replace(pod="")
    assert listener(look(nameless, servers=servers, secured=["shop", "evil", ANY_NAMESPACE])) is None


def test_several_certificate_providers_are_told():
    both = {PodPort("shop", "web-1", 8080): (WEB, ALSO_WEB)}
    lookup = look(policies={WEB: Policy(tls=SIMPLE), ALSO_WEB: Policy(tls=MUTUAL)}, servers=both)
    context = transport(listener(lookup))
    assert context.common_tls_context.tls_certificate_provider_instance.instance_name == "default"
    assert "several certificate providers; default is used" in lookup.remark


def test_a_server_is_known_by_its_address_too():
    context = transport(listener(look(POD._replace(pod=""), policies={WEB: Policy(tls=MUTUAL)})))
    assert context.require_client_certificate.value


@pytest.mark.parametrize(
    "client",
    [
        pytest.param(Client("bank", pod="web-1", address="10.9.9.9"), id="a pod of that name elsewhere"),
        pytest.param(Client("shop", pod="web-2", address="10.9.9.9"), id="another pod"),
        pytest.param(
            Client(
                "bank", pod="web-1", address="10.0.0.1", identity="spiffe://cluster.local/ns/bank/sa/teller"
            ),
            id="proven to be in another namespace",
        ),
    ],
)
def test_a_server_does_not_see_what_others_have(client):
    lookup = look(client, policies={WEB: Policy(tls=MUTUAL, authorization=CART)})
    found = listener(lookup)
    assert transport(found) is None
    assert rules(found) == []


# ---- names ----


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.0.0.0:50051", ("0.0.0.0", 50051)),
        ("[::]:50051", ("::", 50051)),
        ("[0:0::1]:1", ("::1", 1)),
        ("10.0.0.1:65535", ("10.0.0.1", 65535)),
        *(
            (bad, None)
            for bad in (
                "",
                "0.0.0.0",
                "0.0.0.0:",
                "0.0.0.0:0",
                "0.0.0.0:65536",
                "0.0.0.0:1x",
                "web:80",
                ":80",
                "1:1",
            )
        ),
        ("0.0.0.0:٣", None),
        ("0.0.0.0:" + "1" * 5_000, None),
    ],
)
def test_names_of_servers(text, expected):
    found = parse_server(f"grpc/server?xds.resource.listening_address={text}")
    assert found == (SocketAddress(*expected) if expected else None)


def test_other_names_are_not_those_of_servers():
    assert parse_server("web.shop:80") is None
    assert parse_server("grpc/server?xds.resource.listening_addres=0.0.0.0:1") is None


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("ipv4:10.0.0.1:4711", "10.0.0.1"),
        ("ipv6:%5B::1%5D:4711", "::1"),
        ("ipv6:[2001:db8::1]:4711", "2001:db8::1"),
        ("ipv6:%5B::ffff:10.0.0.1%5D:4711", "10.0.0.1"),
        ("unix:/run/x", ""),
        ("", ""),
    ],
)
def test_the_address_of_a_peer(peer, expected):
    assert ip(peer) == expected
