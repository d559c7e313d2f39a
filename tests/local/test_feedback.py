"""What real xds-servers write to the API server about the objects of users: statuses and Events."""

import contextlib
import json

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration

from tests.support.ads import AdsClient
from tests.support.api_stub import ApiStub, endpoint_slice, service
from tests.support.waiting import wait_until
from tests.support.xds_server import XdsServer

CONTROLLER = "proxyless-grpc-lb.dev/xds-server"
FOREIGN = {"parentRef": {"name": "gateway"}, "controllerName": "example.com/other", "conditions": []}
WEB = {"group": "", "kind": "Service", "name": "web"}


@pytest.fixture
def api():
    stub = ApiStub()
    stub.plurals |= {"GRPCRoute": "grpcroutes", "GRPCBackendPolicy": "grpcbackendpolicies"}
    stub.apply(service())
    stub.apply(endpoint_slice("10.0.0.1"))
    yield stub
    stub.stop()


@pytest.fixture
def replicas(api, tmp_path):
    """Two servers that poll every second."""
    kubeconfig = str(api.kubeconfig(tmp_path / "kubeconfig"))
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(XdsServer(KUBECONFIG=kubeconfig, POLL_INTERVAL="1")) for _ in range(2)]
        for server in found:
            server.wait_until_ready()
        yield found


def route(*rules, generation=1, parents=(WEB,), **fields):
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GRPCRoute",
        "metadata": {"name": "web", "namespace": "shop", "generation": generation, "uid": "uid-r"},
        "spec": {"parentRefs": list(parents), "rules": list(rules)},
        **fields,
    }


def rule(expression=None, backend="web"):
    method = {"method": {"type": "RegularExpression", "method": expression}}
    return {
        **({"matches": [method]} if expression else {}),
        "backendRefs": [{"name": backend, "port": 80}],
    }


def policy(name, created, **spec):
    return {
        "apiVersion": "proxyless-grpc-lb.dev/v1alpha1",
        "kind": "GRPCBackendPolicy",
        "metadata": {"name": name, "namespace": "shop", "generation": 1, "creationTimestamp": created},
        "spec": {"targetRefs": [WEB], **spec},
    }


def conditions(api, kind="GRPCRoute", name="web"):
    """Our conditions: type to (status, reason, generation)."""
    status = api.objects[kind, ("shop", name)].get("status", {})
    return {
        c["type"]: (c["status"], c["reason"], c["observedGeneration"])
        for entry in status.get("parents", status.get("ancestors", ()))
        if entry["controllerName"] == CONTROLLER
        for c in entry["conditions"]
    }


def written(api):
    return [path for _, path, _, status in api.writes if status == 200 and path.endswith("/status")]


def wait_for_polls(api):
    """Waits until both replicas have listed everything several times more."""
    before = api.count("grpcroutes?limit=")
    wait_until("polls", lambda: api.count("grpcroutes?limit=") >= before + 6)


ACCEPTED = {"Accepted": ("True", "Accepted", 1), "ResolvedRefs": ("True", "ResolvedRefs", 1)}


def test_replicas_write_each_status_once_and_nothing_at_rest(api, replicas):
    api.apply(route(rule()))
    api.apply(policy("old", "2026-01-01T00:00:00Z", timeout="10s"))
    api.apply(policy("young", "2026-01-02T00:00:00Z", timeout="20s"))
    wait_until("the route's status", lambda: conditions(api) == ACCEPTED)
    wait_until(
        "the policies' statuses",
        lambda: (
            [conditions(api, "GRPCBackendPolicy", name).get("Accepted") for name in ("old", "young")]
            == [("True", "Accepted", 1), ("False", "Conflicted", 1)]
        ),
    )
    wait_for_polls(api)
    assert len(written(api)) == 3
    writes = len(api.writes)
    wait_for_polls(api)
    assert len(api.writes) == writes, "at rest nothing is written, nor tried"
    status = api.objects["GRPCRoute", ("shop", "web")]["status"]
    api.apply(route(rule(), rule("greet("), generation=2, status=status))
    wait_until(
        "the status of the next generation",
        lambda: (
            conditions(api)
            == {
                "Accepted": ("True", "Accepted", 2),
                "ResolvedRefs": ("True", "ResolvedRefs", 2),
                "PartiallyInvalid": ("True", "UnsupportedValue", 2),
            }
        ),
    )
    wait_for_polls(api)
    assert len(written(api)) == 4


def test_entries_of_others_stay_and_ours_go_with_the_last_parent(api, replicas):
    assert replicas
    api.apply(route(rule(), status={"parents": [FOREIGN]}))
    wait_until("our entry", lambda: conditions(api) == ACCEPTED)
    status = api.objects["GRPCRoute", ("shop", "web")]["status"]
    assert status["parents"][0] == FOREIGN
    api.apply(route(rule(), generation=2, parents=[{"name": "gateway"}], status=status))
    wait_until(
        "our entry to go",
        lambda: api.objects["GRPCRoute", ("shop", "web")]["status"] == {"parents": [FOREIGN]},
    )


def test_a_backend_that_appears_heals_the_status(api, replicas):
    api.apply(route(rule(backend="later")))
    missing = ("False", "BackendNotFound", 1)
    wait_until("the missing backend", lambda: conditions(api).get("ResolvedRefs") == missing)
    api.apply(service("later"))
    wait_until("the status to heal", lambda: conditions(api) == ACCEPTED)
    pages = json.loads(replicas[0].get("/debug/routes")[1])
    assert [c["reason"] for c in pages[0]["parents"][0]["conditions"]] == ["Accepted", "ResolvedRefs"]


def test_what_can_not_be_used_is_an_event_on_the_object(api, replicas):
    assert replicas
    api.apply(route(rule(), rule("greet(")))
    api.apply(endpoint_slice("not-an-ip", name="web-2"))

    def found():
        return {(e["involvedObject"]["kind"], e["reason"]) for e in api.events.values()}

    wait_until("both Events", lambda: found() == {("GRPCRoute", "NotUsable"), ("Service", "NotUsable")})
    [event] = [e for e in api.events.values() if e["involvedObject"]["kind"] == "GRPCRoute"]
    assert event["involvedObject"]["uid"] == "uid-r"
    assert "greet(" in event["message"]
    [event] = [e for e in api.events.values() if e["involvedObject"]["kind"] == "Service"]
    assert event["message"].startswith("EndpointSlice web-2: ")


def rejection(api, server, *, namespace, reason):
    """The Event after a client of a namespace has rejected the Cluster of web."""
    with AdsClient(server.address, namespace=namespace) as client:
        client.reason = reason
        client.subscribe(Cluster, "web.shop:80")
        wait_until("the Event", lambda: api.events)
    [event] = api.events.values()
    return event


def test_a_rejection_is_an_event_on_the_service(api, replicas):
    reason = "web.shop:80: field \x1b[31mlb_policy is not supported"
    event = rejection(api, replicas[0], namespace="shop", reason=reason)
    assert (event["involvedObject"]["kind"], event["involvedObject"]["name"]) == ("Service", "web")
    assert event["reason"] == "RejectedByClient"
    assert (
        "rejected the CDS resource of Service web.shop: web.shop:80: field  [31mlb_policy" in event["message"]
    )


def test_a_rejection_of_a_route_is_an_event_on_the_route_too(api, replicas):
    api.apply(route(rule()))
    wait_until("our entry", lambda: conditions(api) == ACCEPTED)
    with AdsClient(replicas[0].address, namespace="shop") as client:
        client.reason = "web.shop:80: no such field"
        client.subscribe(RouteConfiguration, "web.shop:80")
        wait_until(
            "both Events",
            lambda: (
                {event["involvedObject"]["kind"] for event in api.events.values()} == {"Service", "GRPCRoute"}
            ),
        )
    assert {event["reason"] for event in api.events.values()} == {"RejectedByClient"}


def test_a_servers_rejection_is_an_event_on_the_service_and_the_policy(api, replicas):
    """As of a server whose bootstrap has no certificate providers."""
    pod = {"kind": "Pod", "namespace": "shop", "name": "web-1"}
    api.apply(endpoint_slice(endpoints=[{"addresses": ["10.0.0.1"], "targetRef": pod}]))
    api.apply(policy("web", "2026-01-01T00:00:00Z", tls={"mode": "Simple", "subjectAltNames": ["web.shop"]}))
    wait_until("the status", lambda: conditions(api, "GRPCBackendPolicy"))
    name = "grpc/server?xds.resource.listening_address=0.0.0.0:8080"
    with AdsClient(replicas[0].address, namespace="shop") as client:
        client.metadata = {"POD_NAME": "web-1"}
        client.reason = f"{name}: unrecognized certificate provider instance name: default"
        client.subscribe(Listener, name)
        wait_until(
            "both Events",
            lambda: (
                {event["involvedObject"]["kind"] for event in api.events.values()}
                == {"Service", "GRPCBackendPolicy"}
            ),
        )
    for event in api.events.values():
        assert event["reason"] == "RejectedByClient"
        assert "rejected the LDS resource of Service web.shop: " in event["message"]
        assert "unrecognized certificate provider" in event["message"]


def test_the_words_of_a_client_stay_in_its_namespace(api, replicas):
    event = rejection(api, replicas[0], namespace="other", reason="web.shop:80: secret")
    assert "it is in other" in event["message"]
    assert "secret" not in event["message"]


def test_a_server_that_may_not_write_says_so_and_serves(api, tmp_path):
    api.write_fault = 403
    with XdsServer(KUBECONFIG=str(api.kubeconfig(tmp_path / "kubeconfig"))) as server:
        server.wait_until_ready()
        api.apply(route(rule(), rule("greet(")))
        server.wait_for_line("status can't be written")
        server.wait_for_line("Event can't be written")
        assert server.get("/readyz")[0] == 200
        assert "grant patch on grpcroutes/status" in server.warnings("status can't be written")[0]["hint"]
