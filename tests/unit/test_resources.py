"""The content of resources, and that it is never what a gRPC client rejects (gRFCs A27, A39, A52, A61)."""

import hashlib
import ipaddress

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.service.discovery.v3 import discovery_pb2
from hypothesis import given
from hypothesis import strategies as st

from xds_server.ads import wire
from xds_server.model.client import Client
from xds_server.model.service import Endpoint, Port, PortName, Service, ServiceName, SocketAddress
from xds_server.model.tables import ENDPOINTS, SERVICES, TABLES
from xds_server.resources.builders import builder
from xds_server.resources.lookup import Lookup, Tables
from xds_server.resources.types import Key, Resource, ResourceType

NAME = "web.shop:80"
WEB = ServiceName("shop", "web")
PORT = PortName(WEB, 80)


def build(kind, name=NAME, endpoints=()):
    """The resource of a name, for a client in the namespace of the one service that there is."""
    tables: Tables = {
        **{table: {} for table in TABLES},
        SERVICES: {WEB: Service(WEB, (Port("", 80, True),))},
        ENDPOINTS: {PORT: endpoints},
    }
    found = builder(Key(kind, name), cluster_domain="cluster.local", load_reports=False)
    return found and found(Lookup(tables, Client("shop")))


def body(kind, name=NAME, endpoints=()):
    return build(kind, name, endpoints).body


def test_a_listener_has_the_requested_name_and_refers_to_its_route():
    message = listener_pb2.Listener.FromString(body(ResourceType.LISTENER, "web"))
    assert message.name == "web"
    manager = http_connection_manager_pb2.HttpConnectionManager()
    assert message.api_listener.api_listener.Unpack(manager)
    assert manager.rds.route_config_name == NAME
    assert manager.rds.config_source.HasField("ads")
    assert manager.http_filters[-1].typed_config.type_url.endswith(
        "/envoy.extensions.filters.http.router.v3.Router"
    )


def test_a_route_sends_everything_to_the_cluster():
    message = route_pb2.RouteConfiguration.FromString(body(ResourceType.ROUTE))
    [host] = message.virtual_hosts
    assert list(host.domains) == ["*"]
    [only] = host.routes
    assert only.match.WhichOneof("path_specifier") == "prefix"
    assert only.route.cluster == NAME


def test_a_cluster_balances_over_all_endpoints_alike():
    message = cluster_pb2.Cluster.FromString(body(ResourceType.CLUSTER))
    assert message.type == cluster_pb2.Cluster.EDS
    assert message.eds_cluster_config.eds_config.HasField("ads")
    assert message.eds_cluster_config.service_name == NAME
    assert message.lb_policy == cluster_pb2.Cluster.ROUND_ROBIN
    [policy] = message.load_balancing_policy.policies
    assert policy.typed_extension_config.typed_config.type_url.endswith(".round_robin.v3.RoundRobin")


@pytest.mark.parametrize("kind", ResourceType)
@pytest.mark.parametrize("name", ["web.shop:81", "api.shop:80", "nothing like a name"])
def test_what_does_not_exist_is_not_built(kind, name):
    assert build(kind, name) is None


def test_no_endpoints_is_an_empty_assignment():
    message = endpoint_pb2.ClusterLoadAssignment.FromString(body(ResourceType.ENDPOINTS))
    assert message.cluster_name == NAME
    assert len(message.endpoints) == 0


def test_a_dual_stack_pod_is_one_endpoint():
    both = Endpoint("a", (SocketAddress("10.0.0.1", 1), SocketAddress("fd00::1", 2)))
    message = endpoint_pb2.ClusterLoadAssignment.FromString(body(ResourceType.ENDPOINTS, endpoints=(both,)))
    [locality] = message.endpoints
    [backend] = locality.lb_endpoints
    assert locality.load_balancing_weight.value == 1
    assert backend.endpoint.address.socket_address.address == "10.0.0.1"
    [other] = backend.endpoint.additional_addresses
    assert (other.address.socket_address.address, other.address.socket_address.port_value) == ("fd00::1", 2)


addresses = st.integers(0, 255).map(lambda n: SocketAddress(str(ipaddress.ip_address(0x0A000000 + n)), 80))
backends = st.lists(
    st.tuples(st.sampled_from(["", "a", "b", "c"]), addresses), unique_by=lambda item: item[1], max_size=40
).map(lambda items: tuple(sorted(Endpoint(zone, (address,)) for zone, address in items)))


@given(backends)
def test_assignments_contain_nothing_that_clients_reject(found):
    message = endpoint_pb2.ClusterLoadAssignment.FromString(body(ResourceType.ENDPOINTS, endpoints=found))
    zones = [locality.locality.zone for locality in message.endpoints]
    assert len(zones) == len(set(zones))
    assert all(locality.HasField("locality") for locality in message.endpoints)
    assert all(locality.priority == 0 for locality in message.endpoints)
    assert all(
        locality.load_balancing_weight.value == len(locality.lb_endpoints) > 0
        for locality in message.endpoints
    )
    sent = [
        b.endpoint.address.socket_address for locality in message.endpoints for b in locality.lb_endpoints
    ]
    assert len({(a.address, a.port_value) for a in sent}) == len(sent) == len(found)


@given(backends)
def test_equal_content_has_equal_bytes_and_version(found):
    first = build(ResourceType.ENDPOINTS, endpoints=found)
    assert first == build(ResourceType.ENDPOINTS, endpoints=tuple(found))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (ResourceType.CLUSTER, "b8ff3514028219b70da05769b9345ed8416419c5319d9f54b9e9e7cd01241d7e"),
        (ResourceType.ENDPOINTS, "d69b7ae0002386058dfb5d68ae90af57169c9033ebccee256f6e2ce92ee9219e"),
        (ResourceType.LISTENER, "33a24d59b1a718284217ea0dc3057a99cd3c84ecf8510f1533544f6522c832f2"),
        (ResourceType.ROUTE, "41d7a837194609815752e14d00cb81e183848401e987bcf481f1b9912dbfde6a"),
    ],
)
def test_without_traffic_objects_the_bytes_stay_as_they_are(kind, expected):
    """Replicas of two versions serve equal bytes, hence equal versions: a rollout sends nothing to anybody."""
    endpoints = (
        Endpoint("a", (SocketAddress("10.0.0.1", 1), SocketAddress("fd00::1", 2))),
        Endpoint("b", (SocketAddress("10.0.0.2", 1),)),
        Endpoint("b", (SocketAddress("10.0.0.3", 1),)),
    )
    assert hashlib.sha256(body(kind, endpoints=endpoints)).hexdigest() == expected


@given(st.sampled_from(list(ResourceType)), st.lists(st.binary(min_size=1, max_size=20_000), max_size=3))
def test_a_response_assembled_from_bytes_is_the_message(kind, bodies):
    content = wire.assemble(kind, tuple(Resource(str(n), data, "") for n, data in enumerate(bodies)))
    built = wire.response(content, "nonce-1")
    message = discovery_pb2.DiscoveryResponse.FromString(built)
    assert (message.type_url, message.version_info, message.nonce) == (kind.value, content.version, "nonce-1")
    assert [(item.type_url, item.value) for item in message.resources] == [(kind.value, b) for b in bodies]
    assert message.SerializeToString(deterministic=True) == built
