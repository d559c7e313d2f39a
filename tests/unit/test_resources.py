"""What the resources say, and that they never say what a gRPC client refuses (gRFCs A27, A39, A52, A61)."""

import ipaddress

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.service.discovery.v3 import discovery_pb2
from hypothesis import given
from hypothesis import strategies as st

from xds_server.ads import wire
from xds_server.model import Endpoint, SocketAddress
from xds_server.resources import cluster, endpoints, listener, route
from xds_server.resources.types import Resource, ResourceType

NAME = "web.shop:80"


def test_a_listener_has_the_name_that_was_asked_for_and_points_at_its_route():
    message = listener_pb2.Listener.FromString(listener.build("web", NAME).body)
    assert message.name == "web"
    manager = http_connection_manager_pb2.HttpConnectionManager()
    assert message.api_listener.api_listener.Unpack(manager)
    assert manager.rds.route_config_name == NAME
    assert manager.rds.config_source.HasField("ads")
    assert manager.http_filters[-1].typed_config.type_url.endswith(
        "/envoy.extensions.filters.http.router.v3.Router"
    )


def test_a_route_sends_everything_to_the_cluster():
    message = route_pb2.RouteConfiguration.FromString(route.build(NAME, "cluster").body)
    [host] = message.virtual_hosts
    assert list(host.domains) == ["*"]
    [only] = host.routes
    assert only.match.WhichOneof("path_specifier") == "prefix"
    assert only.route.cluster == "cluster"


def test_a_cluster_goes_round_all_endpoints_alike():
    message = cluster_pb2.Cluster.FromString(cluster.build(NAME).body)
    assert message.type == cluster_pb2.Cluster.EDS
    assert message.eds_cluster_config.eds_config.HasField("ads")
    assert message.eds_cluster_config.service_name == NAME
    assert message.lb_policy == cluster_pb2.Cluster.ROUND_ROBIN
    [policy] = message.load_balancing_policy.policies
    assert policy.typed_extension_config.typed_config.type_url.endswith(".round_robin.v3.RoundRobin")


def test_no_endpoints_is_an_empty_assignment():
    message = endpoint_pb2.ClusterLoadAssignment.FromString(endpoints.build(NAME, ()).body)
    assert message.cluster_name == NAME
    assert len(message.endpoints) == 0


def test_a_dual_stack_pod_is_one_endpoint():
    both = Endpoint("a", (SocketAddress("10.0.0.1", 1), SocketAddress("fd00::1", 2)))
    message = endpoint_pb2.ClusterLoadAssignment.FromString(endpoints.build(NAME, (both,)).body)
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
def test_assignments_have_nothing_that_clients_refuse(found):
    message = endpoint_pb2.ClusterLoadAssignment.FromString(endpoints.build(NAME, found).body)
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
    assert endpoints.build(NAME, found) == endpoints.build(NAME, tuple(found))


@given(st.sampled_from(list(ResourceType)), st.lists(st.binary(min_size=1, max_size=20_000), max_size=3))
def test_a_response_put_together_from_bytes_is_the_message(kind, bodies):
    said = wire.content(kind, tuple(Resource(str(n), body, "") for n, body in enumerate(bodies)))
    built = wire.response(said, "nonce-1")
    message = discovery_pb2.DiscoveryResponse.FromString(built)
    assert (message.type_url, message.version_info, message.nonce) == (kind.value, said.version, "nonce-1")
    assert [(item.type_url, item.value) for item in message.resources] == [(kind.value, b) for b in bodies]
    assert message.SerializeToString(deterministic=True) == built
