"""One service from its Kubernetes objects: every port case, every condition, every oddity."""

import itertools

import pytest

from tests.support.convert import convert
from xds_server.mesh.nodes import NodeAssembler
from xds_server.mesh.services import NOTHING, assemble
from xds_server.model.service import Endpoint, Port, PortName, Service, ServiceName, SocketAddress
from xds_server.model.tables import NODE_ZONES, Entry

WEB = PortName(ServiceName("shop", "web"), 80)


def service(*ports, name="web", **spec):
    ports = ports or ({"name": "grpc", "port": 80},)
    return convert(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"ports": list(ports), **spec},
        }
    )


def endpoint_slice(
    *endpoints, ports=({"name": "grpc", "port": 8080},), family="IPv4", name="web-1", **fields
):
    return convert(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": family,
            "endpoints": list(endpoints),
            "ports": list(ports) if ports is not None else None,
            **fields,
        }
    )


def at(address, *, zone=None, pod=None, **conditions):
    return {
        "addresses": [address],
        "conditions": conditions,
        **({"zone": zone} if zone else {}),
        **({"targetRef": {"kind": "Pod", "name": pod}} if pod else {}),
    }


def addresses(service_object, *slices):
    """Per port of the service: the addresses of its endpoints, as text."""
    found = assemble(service_object, slices)
    assert found.service is not None
    return [[str(a) for e in found.endpoints[port] for a in e.addresses] for port in found.service.port_names]


def problems(service_object, *slices):
    return [problem.reason for problem in assemble(service_object, slices).problems]


def test_a_service_with_its_endpoints():
    found = assemble(
        service({"name": "grpc", "port": 80, "appProtocol": "grpc"}),
        [endpoint_slice(at("10.0.0.2", zone="b"), at("10.0.0.1", zone="a"))],
    )
    endpoints = (
        Endpoint("a", (SocketAddress("10.0.0.1", 8080),)),
        Endpoint("b", (SocketAddress("10.0.0.2", 8080),)),
    )
    assert found.service == Service(ServiceName("shop", "web"), (Port("grpc", 80, True),))
    assert found.endpoints == {WEB: endpoints}
    assert not found.problems


@pytest.mark.parametrize(
    ("ready", "serving", "terminating"), list(itertools.product([None, True, False], repeat=3))
)
def test_conditions_follow_the_api_for_every_combination(ready, serving, terminating):
    conditions = {
        name: value
        for name, value in (("ready", ready), ("serving", serving), ("terminating", terminating))
        if value is not None
    }
    is_ready = ready in (None, True)
    is_serving = is_ready if serving is None else serving
    healthy = is_ready and not terminating
    draining = is_serving and bool(terminating)
    # Beside a healthy endpoint only healthy ones count; alone, one that still serves while it ends does too.
    other = at("10.0.0.9")
    beside = addresses(service(), endpoint_slice(at("10.0.0.1", **conditions), other))
    assert beside == [["10.0.0.1:8080", "10.0.0.9:8080"] if healthy else ["10.0.0.9:8080"]]
    alone = addresses(service(), endpoint_slice(at("10.0.0.1", **conditions)))
    assert alone == [["10.0.0.1:8080"] if healthy or draining else []]


def test_conditions_may_be_missing_altogether():
    assert addresses(service(), endpoint_slice({"addresses": ["10.0.0.1"]})) == [["10.0.0.1:8080"]]


def test_all_slices_are_merged():
    slices = [endpoint_slice(*(at(f"10.0.{n}.{i}") for i in range(100)), name=f"web-{n}") for n in range(3)]
    assert len(addresses(service(), *slices)[0]) == 300


@pytest.mark.parametrize(
    ("ports", "slice_ports", "expected"),
    [
        pytest.param([{"port": 80}], [{"name": "", "port": 8080}], [["10.0.0.1:8080"]], id="unnamed"),
        pytest.param([{"port": 80}], [{"port": 8080}], [["10.0.0.1:8080"]], id="unnamed, null in the slice"),
        pytest.param(
            [{"name": "grpc", "port": 80, "targetPort": "x"}],
            [{"name": "grpc", "port": 9}],
            [["10.0.0.1:9"]],
            id="named target port",
        ),
        pytest.param(
            [{"name": "a", "port": 80}, {"name": "b", "port": 81}],
            [{"name": "b", "port": 2}, {"name": "a", "port": 1}],
            [["10.0.0.1:1"], ["10.0.0.1:2"]],
            id="several",
        ),
        pytest.param(
            [{"name": "a", "port": 80}], [{"name": "other", "port": 1}], [[]], id="name not in the slice"
        ),
        pytest.param(
            [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "tcp", "port": 53}],
            [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "tcp", "port": 53}],
            [["10.0.0.1:53"]],
            id="UDP beside TCP",
        ),
    ],
)
def test_ports_are_joined_by_name(ports, slice_ports, expected):
    assert addresses(service(*ports), endpoint_slice(at("10.0.0.1"), ports=slice_ports)) == expected


def test_a_named_target_port_may_differ_by_slice():
    old = endpoint_slice(at("10.0.0.1"), ports=[{"name": "grpc", "port": 1}], name="web-a")
    new = endpoint_slice(at("10.0.0.2"), ports=[{"name": "grpc", "port": 2}], name="web-b")
    assert addresses(service(), old, new) == [["10.0.0.1:1", "10.0.0.2:2"]]


@pytest.mark.parametrize("spec", [{"clusterIP": "None"}, {"selector": {"app": "web"}}, {}])
def test_headless_services_and_those_without_selector_are_like_any_other(spec):
    assert addresses(service(**spec), endpoint_slice(at("10.0.0.1"))) == [["10.0.0.1:8080"]]


def test_an_external_name_is_not_served_and_says_so():
    found = assemble(service(type="ExternalName"), [])
    assert found.service is None
    assert [p.reason for p in found.problems] == ["type ExternalName has no endpoints; it is not served"]


def test_without_a_tcp_port_there_is_nothing_to_serve():
    assert assemble(service({"name": "dns", "port": 53, "protocol": "UDP"}), []) == NOTHING


@pytest.mark.parametrize("name", ["a.b", ""])
def test_a_name_that_no_target_can_spell_is_not_served(name):
    found = assemble(service(name=name), [])
    assert found.service is None
    assert len(found.problems) == 1


@pytest.mark.parametrize("number", [0, -1, 65_536])
def test_a_service_port_out_of_range_harms_only_itself(number):
    found = assemble(service({"name": "bad", "port": number}, {"name": "good", "port": 80}), [])
    assert found.service is not None
    assert [port.name for port in found.service.ports] == ["good"]
    assert [p.reason for p in found.problems] == [f"port bad has the number {number}; expected 1 to 65535"]


def test_no_pods_is_a_service_without_endpoints():
    nothing = endpoint_slice(ports=None)
    assert addresses(service(), nothing) == [[]]
    assert problems(service(), nothing) == []
    assert addresses(service(), endpoint_slice(endpoints=None)) == [[]]


def test_endpoints_without_ports_are_named_and_left_out():
    assert addresses(service(), endpoint_slice(at("10.0.0.1"), ports=None)) == [[]]
    assert problems(service(), endpoint_slice(at("10.0.0.1"), ports=None)) == [
        "it has no ports, so its 1 endpoints can't be used"
    ]


@pytest.mark.parametrize("family", ["FQDN", "IPv9"])
def test_an_address_type_that_is_no_ip_harms_only_its_slice(family):
    bad = endpoint_slice(at("a.example"), family=family, name="bad")
    good = endpoint_slice(at("10.0.0.1"), name="good")
    assert addresses(service(), bad, good) == [["10.0.0.1:8080"]]
    assert problems(service(), bad, good) == [
        f"addressType '{family}' can't be used by gRPC clients; expected IPv4 or IPv6"
    ]


@pytest.mark.parametrize("address", ["localhost", "10.0.0", "fe80::1%eth0", ""])
def test_an_address_that_is_no_ip_harms_only_its_endpoint(address):
    item = endpoint_slice(at(address), at("10.0.0.1"))
    assert addresses(service(), item) == [["10.0.0.1:8080"]]
    assert len(problems(service(), item)) == 1


@pytest.mark.parametrize("port", [0, -1, 65536, None])
def test_a_port_number_out_of_range_harms_only_its_port(port):
    item = endpoint_slice(at("10.0.0.1"), ports=[{"name": "x", "port": port}, {"name": "grpc", "port": 80}])
    assert addresses(service(), item) == [["10.0.0.1:80"]]
    assert problems(service(), item) == [f"port x has the number {port}; expected 1 to 65535"]


def test_an_address_in_two_slices_counts_once_and_is_normal():
    """The controller adds an endpoint to one slice before it removes it from another."""
    first = endpoint_slice(at("10.0.0.1"), name="web-a")
    second = endpoint_slice(at("10.0.0.1"), at("10.0.0.2"), name="web-b")
    assert addresses(service(), first, second) == [["10.0.0.1:8080", "10.0.0.2:8080"]]
    assert problems(service(), first, second) == []


def test_an_address_twice_in_a_slice_is_named_though_another_slice_has_it_too():
    first = endpoint_slice(at("10.0.0.1"), name="web-a")
    second = endpoint_slice(at("10.0.0.1"), at("10.0.0.1"), name="web-b")
    assert addresses(service(), first, second) == [["10.0.0.1:8080"]]
    assert problems(service(), first, second) == [
        "10.0.0.1:8080 is in the slice more than once; it counts once"
    ]


def test_an_address_twice_in_one_slice_counts_once_and_is_named():
    item = endpoint_slice(at("10.0.0.1"), at("10.0.0.1"))
    assert addresses(service(), item) == [["10.0.0.1:8080"]]
    assert problems(service(), item) == ["10.0.0.1:8080 is in the slice more than once; it counts once"]


def test_an_address_that_moves_between_slices_is_ready_if_either_says_so():
    stale = endpoint_slice(at("10.0.0.1", ready=False), name="web-a")
    fresh = endpoint_slice(at("10.0.0.1"), name="web-b")
    assert addresses(service(), stale, fresh) == [["10.0.0.1:8080"]]


class TestDualStack:
    four = endpoint_slice(at("10.0.0.1", pod="p1", zone="a"), at("10.0.0.2", pod="p2"), name="web-4")
    six = endpoint_slice(
        at("fd00::1", pod="p1", zone="a"), at("fd00::2", pod="p2"), family="IPv6", name="web-6"
    )

    def test_a_pod_with_both_families_is_one_endpoint(self):
        found = assemble(service(), [self.four, self.six])
        assert found.problems == ()
        assert found.endpoints[WEB] == (
            Endpoint("", (SocketAddress("10.0.0.2", 8080), SocketAddress("fd00::2", 8080))),
            Endpoint("a", (SocketAddress("10.0.0.1", 8080), SocketAddress("fd00::1", 8080))),
        )

    def test_the_first_family_of_the_service_comes_first(self):
        found = assemble(service(ipFamilies=["IPv6", "IPv4"]), [self.four, self.six])
        assert [e.addresses[0].ip for e in found.endpoints[WEB]] == ["fd00::2", "fd00::1"]

    def test_without_a_target_each_address_is_an_endpoint(self):
        slices = [endpoint_slice(at("10.0.0.1")), endpoint_slice(at("fd00::1"), family="IPv6", name="web-6")]
        assert addresses(service(), *slices) == [["10.0.0.1:8080", "[fd00::1]:8080"]]

    def test_two_addresses_of_one_family_are_two_endpoints_whatever_their_target(self):
        item = endpoint_slice(at("10.0.0.1", pod="p"), at("10.0.0.2", pod="p"))
        found = assemble(service(), [item])
        assert [len(e.addresses) for e in found.endpoints[WEB]] == [1, 1]

    def test_one_address_spelled_in_two_ways_is_one(self):
        slices = [endpoint_slice(at("fd00::1"), at("FD00:0:0::1"), family="IPv6")]
        assert addresses(service(), *slices) == [["[fd00::1]:8080"]]


def test_order_of_objects_makes_no_difference():
    slices = [
        endpoint_slice(at("10.0.0.1", zone="b"), at("10.0.0.3", zone="a"), name="web-a"),
        endpoint_slice(at("10.0.0.2", zone="a"), name="web-b"),
    ]
    assert assemble(service(), slices) == assemble(service(), slices[::-1])


def test_hints_say_whose_clients_should_prefer_an_endpoint():
    hints = {"forZones": [{"name": "b"}, {"name": "a"}, {"name": "a"}], "forNodes": [{"name": "n1"}]}
    found = assemble(
        service(), [endpoint_slice({**at("10.0.0.1", zone="a"), "hints": hints}, at("10.0.0.2"))]
    )
    assert [(e.for_zones, e.for_nodes) for e in found.endpoints[WEB]] == [((), ()), (("a", "b"), ("n1",))]


def node(name, zone=None):
    labels = {"topology.kubernetes.io/zone": zone} if zone is not None else None
    return convert({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}})


def test_the_zones_of_nodes_that_changed_are_passed_on():
    nodes = NodeAssembler()
    nodes.put("n1", node("n1", "a"))
    nodes.put("n2", node("n2"))
    assert nodes.flush() == {Entry(NODE_ZONES, "n1"): "a"}
    nodes.put("n1", node("n1", "a"))
    assert nodes.flush() == {}
    nodes.put("n1", node("n1", "b"))
    nodes.put("n2", node("n2", "a"))
    assert nodes.flush() == {Entry(NODE_ZONES, "n1"): "b", Entry(NODE_ZONES, "n2"): "a"}
    nodes.put("n1", None)
    nodes.put("n2", node("n2", ""))
    nodes.put("n3", None)
    assert nodes.flush() == {Entry(NODE_ZONES, "n1"): None, Entry(NODE_ZONES, "n2"): None}
