"""Explanations: each step from a name to its endpoints, by the same code that serves."""

from functools import partial

import pytest
import yaml
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.route.v3 import route_pb2
from hypothesis import given
from hypothesis import strategies as st

from tests.support import objects
from tests.support.traffic import policy, route
from xds_server.cache.cache import Cache
from xds_server.explain.explanation import Explanation, Step
from xds_server.explain.why import MAX_NEAREST, explain
from xds_server.model.client import Client
from xds_server.model.tables import Entry
from xds_server.objects import documents
from xds_server.offline.mesh import assemble
from xds_server.offline.reading import BY_NAME
from xds_server.resources.builders import builder
from xds_server.resources.types import Key, ResourceType

HELLO = "hello-server.default:50051"


class Mesh:
    """The model of some objects."""

    def __init__(self, *found):
        identified = [(documents.identity(each, BY_NAME), documents.convert(each, BY_NAME)) for each in found]
        self.store, self.tables = assemble(identified)

    def explain(
        self, name: str, namespace: str = "default", zone: str = "", node: str = "", pod: str = ""
    ) -> Explanation:
        return explain(
            self.tables,
            Client(namespace, zone, node, pod=pod),
            name,
            cluster_domain="cluster.local",
            statuses=self.store.statuses,
            problems=self.store.problems,
        )


def service(name="hello-server", *ips, namespace="default", ports=None):
    """A Service and a slice with its endpoints, the n-th of which is in the n-th zone."""
    yield objects.service(name, namespace=namespace, ports=ports)
    found = objects.endpoint_slice(
        f"{name}-1", name, namespace=namespace, **objects.endpoints(*ips, port=8080)
    )
    for endpoint, zone in zip(found["endpoints"], "abcdefgh", strict=False):
        endpoint["zone"] = zone
    yield found


def step(found: Explanation, title: str) -> Step:
    [one] = [step for step in found.steps if step.title.startswith(title)]
    return one


def text(found: Explanation) -> str:
    return "\n".join(line for step in found.steps for line in (step.text, *step.details))


def test_a_service_without_routes_is_all_endpoints_alike() -> None:
    found = Mesh(*service("hello-server", "10.0.0.1", "10.0.0.2")).explain(f"xds:///{HELLO}")
    assert found.found
    assert step(found, "Name").text == f"It is {HELLO}."
    assert step(found, "Routes").text == "No GRPCRoute: every request goes to the Service itself."
    assert step(found, "Backend") == Step(
        f"Backend {HELLO}", "2 endpoints; round robin.", ("zone a: 10.0.0.1:8080", "zone b: 10.0.0.2:8080")
    )
    assert found.nearest == ()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("hello-server", "the client's namespace"),
        ("hello-server", "port 50051: the only one"),
        ("hello-server-listener", "-listener is left out"),
        ("hello-server.default:grpc", "port grpc, by name"),
        ("hello-server.default:50051", "port 50051, by number"),
        ("hello-server.default.svc.cluster.local", "port 50051"),
    ],
)
def test_it_says_how_a_name_was_read(name: str, says: str) -> None:
    found = Mesh(*service("hello-server", "10.0.0.1")).explain(name)
    assert found.found
    assert any(says in detail for detail in step(found, "Name").details)


PORTS = [{"name": "web", "port": 80}, {"name": "api", "port": 81}]


@pytest.mark.parametrize(
    ("name", "namespace", "says", "nearest"),
    [
        ("helo-server.default:50051", "default", "no Service helo-server in namespace default", HELLO),
        ("hello-server", "shop", "no Service hello-server in namespace shop", HELLO),
        ("hello-server.default:80", "default", "has no port 80", HELLO),
        (
            "two-ports.default",
            "default",
            "several ports, none of which is named grpc",
            "two-ports.default:80",
        ),
        ("hello server:50051:1.x", "default", "no Service", HELLO),
        ("hello-server.default.example.com", "default", "none of the forms", HELLO),
        ("", "default", "none of the forms", None),
        ("nothing-like-it-at-all", "default", "no Service", None),
    ],
)
def test_a_name_that_leads_nowhere_says_why_and_what_is_near(
    name: str, namespace: str, says: str, nearest: str | None
) -> None:
    mesh = Mesh(*service("hello-server", "10.0.0.1"), *service("two-ports", "10.0.0.2", ports=PORTS))
    found = mesh.explain(name, namespace)
    assert not found.found
    assert says in text(found)
    assert len(found.nearest) <= MAX_NEAREST
    assert (found.nearest[:1] or (None,))[0] == nearest


def test_routes_are_told_rule_by_rule_in_their_order() -> None:
    rules = """
    - backendRefs: [{name: hello-server, port: 50051, weight: 90}, {name: v2, port: 50051, weight: 10}]
    - matches: [{method: {service: shop.Cart, method: Add}, headers: [{name: x-beta, value: "yes"}]}]
      backendRefs: [{name: gone, port: 80}]
    """
    mesh = Mesh(
        *service("hello-server", "10.0.0.1"),
        *service("v2", "10.0.0.2"),
        route(rules),
        policy("timeout: 10s\nretry: {codes: [UNAVAILABLE], attempts: 2}"),
        policy("maxConcurrentRequests: 7\nloadBalancing: {type: WeightedRoundRobin}", name="v2"),
    )
    found = mesh.explain(HELLO)
    assert found.found
    says = "timeout 10 s; 2 retries on UNAVAILABLE, the first after 25 ms"
    assert step(found, "Routes") == Step(
        "Routes",
        "2 rules of GRPCRoutes in default, the Service's namespace.",
        (
            f'method shop.Cart/Add, header x-beta is "yes" -> BackendNotFound: Service default/gone ({says})',
            f"every request -> 90.0% {HELLO}, 10.0% v2.default:50051 ({says})",
        ),
    )
    assert not step(found, "Backend BackendNotFound").ok
    assert step(found, "Backend v2").text == (
        "1 endpoint; weighted round robin, by the load that servers report; at most 7 concurrent requests of one client."
    )
    assert any("ResolvedRefs=False" in line and "gone" in line for line in step(found, "Objects").details)


def test_a_consumer_sees_the_routes_of_its_namespace() -> None:
    rules = "[{backendRefs: [{name: v2, namespace: default, port: 50051}]}]"
    mesh = Mesh(
        *service("hello-server", "10.0.0.1"),
        *service("v2", "10.0.0.2"),
        route(rules, name="mine", namespace="shop"),
    )
    assert "the client's namespace" in step(mesh.explain(HELLO, "shop"), "Routes").text
    assert "No GRPCRoute" in step(mesh.explain(HELLO, "bank"), "Routes").text


def test_endpoints_are_told_in_the_order_in_which_the_client_uses_them() -> None:
    first, slices = service("hello-server", "10.0.0.1", "10.0.0.2")
    for endpoint, zone in zip(slices["endpoints"], "ab", strict=True):
        endpoint["hints"] = {"forZones": [{"name": zone}]}
    found = Mesh(first, slices).explain(HELLO, zone="b")
    assert step(found, "Backend").details == (
        "priority 0, zone b: 10.0.0.2:8080",
        "priority 1, zone a: 10.0.0.1:8080",
    )


def test_a_service_without_endpoints_is_not_found() -> None:
    found = Mesh(*service("hello-server")).explain(HELLO)
    assert not found.found
    assert "no ready endpoint" in step(found, "Backend").text


BACKENDS = st.lists(st.sampled_from(["hello-server", "v2", "gone"]), min_size=1, max_size=3, unique=True)
RULES = st.lists(st.tuples(BACKENDS, st.booleans()), min_size=1, max_size=3)


@given(RULES, st.sampled_from(["default", "shop"]), st.sampled_from(["", "a", "b"]), st.integers(0, 3))
def test_it_says_what_a_client_gets(rules, namespace, zone, number) -> None:
    """The backends and the endpoints of an explanation are those of the resources."""
    written = [
        {
            "backendRefs": [{"name": name, "namespace": "default", "port": 50051} for name in names],
            **({"matches": [{"headers": [{"name": "x", "value": "y"}]}]} if has_header else {}),
        }
        for names, has_header in rules
    ]
    ips = [f"10.0.0.{n}" for n in range(1, number + 1)]
    mesh = Mesh(
        *service("hello-server", *ips),
        *service("v2", "10.0.1.1"),
        route(yaml.safe_dump(written), name="r", namespace=namespace),
    )
    cache = Cache(partial(builder, cluster_domain="cluster.local", load_reports=True))
    cache.publish(
        {Entry(table, key): value for table, found in mesh.tables.items() for key, value in found.items()}
    )
    client = Client("shop", zone)
    sent = cache.get(Key(ResourceType.ROUTE, HELLO), client)
    assert sent
    [host] = route_pb2.RouteConfiguration.FromString(sent.body).virtual_hosts
    clusters = dict.fromkeys(
        name
        for one in host.routes
        for name in [one.route.cluster, *(c.name for c in one.route.weighted_clusters.clusters)]
        if name
    )
    found = mesh.explain(HELLO, "shop", zone)
    told = [step for step in found.steps if step.title.startswith("Backend ")]
    assert [step.title.removeprefix("Backend ") for step in told] == list(clusters)
    for name, one in zip(clusters, told, strict=True):
        assignment = cache.get(Key(ResourceType.ENDPOINTS, name), client)
        assert assignment
        addresses = [
            f"{e.endpoint.address.socket_address.address}:{e.endpoint.address.socket_address.port_value}"
            for locality in endpoint_pb2.ClusterLoadAssignment.FromString(assignment.body).endpoints
            for e in locality.lb_endpoints
        ]
        assert [word for detail in one.details for word in detail.partition(": ")[2].split(", ")] == addresses
        assert one.ok == bool(addresses)


# ---- security ----

SERVER = "grpc/server?xds.resource.listening_address=0.0.0.0:8080"
SPIFFE = "spiffe://cluster.local/ns/default/sa"
SECURED = f"""
tls: {{mode: Mutual, subjectAltNames: ['{SPIFFE}/hello-server']}}
authorization: {{allow: [{{principals: ['{SPIFFE}/hello-client'], methods: [/greeter.v1.Greeter/SayHello]}}]}}
"""


def pod(name):
    """The Service with one endpoint, which is a pod."""
    found, slice_ = service("hello-server", "10.0.0.1")
    slice_["endpoints"][0]["targetRef"] = {"kind": "Pod", "namespace": "default", "name": name}
    return found, slice_


def test_how_connections_are_encrypted_and_who_may_call():
    found = Mesh(*pod("hello-1"), policy(SECURED)).explain(HELLO)
    backend = step(found, "Backend")
    assert f"Mutual TLS, to servers with a certificate of {SPIFFE}/hello-server" in backend.text
    allowed = f"servers let in {SPIFFE}/hello-client for /greeter.v1.Greeter/SayHello"
    assert allowed in backend.details
    server = Mesh(*pod("hello-1"), policy(SECURED)).explain(SERVER, pod="hello-1")
    assert server.found
    assert step(server, "Server").text == f"Clients reach it as {HELLO}."
    assert (
        step(server, "Security").text
        == f"Mutual TLS, to servers with a certificate of {SPIFFE}/hello-server."
    )
    assert step(server, "Security").details == (allowed,)


def test_a_server_that_is_not_known():
    found = Mesh(*pod("hello-1")).explain(SERVER, pod="hello-1")
    assert found.found
    assert "No security policy concerns it" in step(found, "Server").text
    waiting = Mesh(*pod("hello-1"), policy(SECURED)).explain(SERVER, pod="hello-2")
    assert not waiting.found
    assert step(waiting, "Server").text.startswith("No Service selects the server of pod hello-2 in default")


@pytest.mark.parametrize(
    "objects", [pod("hello-1"), [*service("hello-server")]], ids=["a pod", "no endpoint"]
)
def test_a_security_policy_that_can_not_be_used_closes_the_service(objects):
    mesh = Mesh(*objects, policy(SECURED.replace("Mutual", "Strict")))
    assert not mesh.explain(HELLO).found
    assert "its security policy can't be used" in step(mesh.explain(HELLO), "Backend").text
    assert not mesh.explain(SERVER, pod="hello-1").found


def test_whom_a_server_lets_in_that_two_services_select():
    """A caller has to be allowed by both, so the lists are told apart."""
    again = [*pod("hello-1"), *pod("hello-1")]
    for found in again[2:]:
        found["metadata"]["name"] = "hello-again"
    again[3]["metadata"]["labels"] = {"kubernetes.io/service-name": "hello-again"}
    other = policy(SECURED.replace("hello-client", "howdy-client"), name="hello-again")
    server = Mesh(*again, policy(SECURED), other).explain(SERVER, pod="hello-1")
    method = "for /greeter.v1.Greeter/SayHello"
    assert step(server, "Security").details == (
        f"hello-again.default:50051: servers let in {SPIFFE}/howdy-client {method}",
        f"{HELLO}: servers let in {SPIFFE}/hello-client {method}",
        "each of these Services has to allow a call",
    )
