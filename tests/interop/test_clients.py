"""Scenarios that run with every implementation of the client. The first line of a docstring is the row's title."""

import json
from collections.abc import Sequence

import pytest

from tests.interop.client import Client, Replies, alternate, call_until
from tests.interop.conftest import Start
from tests.interop.mesh import NAME, SERVICE, TARGET, Greeter, Mesh
from tests.support import objects
from tests.support.waiting import wait_until

TARGETS = 200
SPELLINGS = [
    "hello-server",
    "hello-server:50051",
    "hello-server.default",
    "hello-server.default:50051",
    "hello-server.default.svc",
    "hello-server.default.svc:50051",
    "hello-server.default.svc.cluster.local",
    "hello-server.default.svc.cluster.local:50051",
    "hello-server-listener",
]
PORT_NAMES = [
    f"{spelling}:grpc" for spelling in SPELLINGS if ":" not in spelling and "-listener" not in spelling
]
CANONICAL_ONLY = "it subscribes to routes by their canonical name; only gRPC derives a name from a target"


def names(mesh: Mesh, *numbers: int) -> set[str]:
    """Returns the names of some greeters."""
    return {mesh.greeters[number].name for number in numbers}


@pytest.mark.smoke
def test_cold_start(mesh: Mesh, start: Start) -> None:
    """cold start: the first call of a new process is answered"""
    mesh.serve({"zone-a": mesh.greeters[:1]})
    client = start()
    client.open("a", TARGET)
    assert client.call("a", 5) == Replies(5 * [mesh.greeters[0].name], [])


@pytest.mark.smoke
def test_alternation(mesh: Mesh, start: Start) -> None:
    """replies alternate strictly over three endpoints in two zones"""
    mesh.serve({"zone-a": mesh.greeters[:2], "zone-b": mesh.greeters[2:3]})
    client = start()
    client.open("a", TARGET)
    # The first replies come while connections are still being established.
    failures = call_until(client, "a", "every endpoint in turn", lambda seen: alternate(seen.hosts, among=3))
    replies = client.call("a", 30)
    assert alternate(replies.hosts, among=3)
    assert failures + replies.failures == []


def test_scale_up(mesh: Mesh, start: Start) -> None:
    """scale up, 1 → 4: the new endpoints are used, no call fails"""
    mesh.serve({"zone-a": mesh.greeters[:1]})
    client = start()
    client.open("a", TARGET)
    assert client.call("a", 5).hosts == 5 * [mesh.greeters[0].name]
    mesh.serve({"zone-a": mesh.greeters})
    failures = call_until(
        client, "a", "all four in turn", lambda seen: alternate(seen.hosts, among=4), times=8
    )
    assert failures == []


def test_scale_to_zero_and_back(mesh: Mesh, start: Start) -> None:
    """scale to zero and back: calls fail at once with UNAVAILABLE, then succeed again"""
    client = start()
    client.open("a", TARGET)
    with Greeter("hello-last") as last:
        last.wait_for_line("serving")
        mesh.serve({"zone-a": [last]})
        assert client.call("a", 4).hosts == 4 * [last.name]
        mesh.serve({})
        wait_until("the change to be known", lambda: "zone-a" not in mesh.server.get("/debug/services")[1])
    # The greeter has exited, as a pod would: grpc-java keeps calling its last endpoints while there are no others.
    failures = call_until(client, "a", "calls to fail", lambda seen: not seen.hosts, times=2, patient=False)
    assert {failure["code"] for failure in failures} == {"UNAVAILABLE"}
    mesh.serve({"zone-b": mesh.greeters[2:]})
    call_until(client, "a", "both new ones", lambda seen: set(seen.hosts) == names(mesh, 2, 3))


def test_control_plane_restart(mesh: Mesh, start: Start) -> None:
    """control plane restarts, endpoints change meanwhile: no call fails, the change arrives"""
    mesh.serve({"zone-a": mesh.greeters[:2]})
    client = start()
    client.open("a", TARGET)
    call_until(client, "a", "both", lambda seen: set(seen.hosts) == names(mesh, 0, 1))
    mesh.stop_server()
    during = client.call("a", 10, patient=False)
    mesh.serve({"zone-a": mesh.greeters[1:3]})
    mesh.start_server()
    after = call_until(
        client, "a", "the new one", lambda seen: set(seen.hosts) == names(mesh, 1, 2), patient=False
    )
    assert during.failures + after == []


def test_control_plane_down_at_start(mesh: Mesh, start: Start) -> None:
    """control plane down when the client starts: calls fail or wait, then succeed"""
    mesh.serve({"zone-a": mesh.greeters[:1]})
    mesh.stop_server()
    client = start()
    client.open("a", TARGET)
    failures = client.call("a", 2, patient=False, seconds=1).failures
    assert {failure["code"] for failure in failures} <= {"UNAVAILABLE", "DEADLINE_EXCEEDED"}
    assert len(failures) == 2
    mesh.start_server()
    call_until(client, "a", "replies", lambda seen: seen.hosts == 6 * [mesh.greeters[0].name])


@pytest.mark.not_for("Envoy", "a proxy keeps its resources; it is never idle")
def test_idle(mesh: Mesh, start: Start) -> None:
    """idle and back: subscriptions end, the next call reaches the current endpoints"""
    mesh.serve({"zone-a": mesh.greeters[:1]})
    client = start()
    client.open("a", TARGET, idle_seconds=1)
    assert client.call("a", 2) == Replies(2 * [mesh.greeters[0].name], [])
    wait_until("the client to unsubscribe", lambda: mesh.metric("xds_subscribed_resources") == 0)
    mesh.serve({"zone-b": mesh.greeters[1:2]})
    wait_until("the change to be known", lambda: "zone-b" in mesh.server.get("/debug/services")[1])
    assert client.call("a", 2) == Replies(2 * [mesh.greeters[1].name], [])


def test_deleted_and_created_again(mesh: Mesh, start: Start) -> None:
    """a Service is deleted and created again with other endpoints: they are used"""
    mesh.serve({"zone-a": mesh.greeters[:1]})
    client = start()
    client.open("a", TARGET)
    assert client.call("a", 2).hosts == 2 * [mesh.greeters[0].name]
    mesh.delete()
    wait_until("the deletion to be known", lambda: SERVICE not in mesh.server.get("/debug/services")[1])
    client.call("a", 2, patient=False)
    mesh.serve({"zone-a": mesh.greeters[1:3]})
    call_until(client, "a", "its new endpoints", lambda seen: set(seen.hosts) == names(mesh, 1, 2))


@pytest.mark.not_for("Envoy", CANONICAL_ONLY)
def test_every_spelling(mesh: Mesh, start: Start) -> None:
    """every spelling of a target, all in one process"""
    assert_all_reach_the_first(mesh, start(), SPELLINGS)


@pytest.mark.not_for("Envoy", CANONICAL_ONLY)
@pytest.mark.fails_in("Node", "Invalid URL", "it parses the target as a URL, whose port has to be a number")
def test_port_names(mesh: Mesh, start: Start) -> None:
    """targets with a port name"""
    assert_all_reach_the_first(mesh, start(), PORT_NAMES)


def assert_all_reach_the_first(mesh: Mesh, client: Client, spellings: Sequence[str]) -> None:
    mesh.serve({"zone-a": mesh.greeters[:1]})
    for spelling in spellings:
        client.open(spelling, f"xds:///{spelling}")
    found = {spelling: client.call(spelling, patient=False) for spelling in spellings}
    assert found == dict.fromkeys(spellings, Replies([mesh.greeters[0].name], []))


def test_many_targets(mesh: Mesh, start: Start) -> None:
    """200 targets in one process, then a change of one of them"""
    services = [f"service-{number}" for number in range(TARGETS)]
    owner = {service: mesh.greeters[number % len(mesh.greeters)] for number, service in enumerate(services)}
    for service in services:
        mesh.serve({"zone-a": [owner[service]]}, service)
    wait_until("all to be known", lambda: mesh.metric("discovery_services") == TARGETS)
    client = start()
    for service in services:
        client.open(service, f"xds:///{service}.default:50051")
    found = {service: client.call(service) for service in services}
    assert found == {service: Replies([owner[service].name], []) for service in services}
    mesh.serve({"zone-a": mesh.greeters[1:2]}, "service-100")
    call_until(client, "service-100", "the change", lambda seen: set(seen.hosts) == names(mesh, 1))
    assert client.call("service-101").hosts == [owner["service-101"].name]


def test_two_clients_with_one_node_id(mesh: Mesh, start: Start) -> None:
    """two processes with one node id don't affect each other"""
    mesh.serve({"zone-a": mesh.greeters[:1]})
    clients = [start(node_id="the-same"), start(node_id="the-same")]
    for client in clients:
        client.open("a", TARGET)
        assert client.call("a", 2).hosts == 2 * [mesh.greeters[0].name]
    mesh.serve({"zone-a": mesh.greeters[1:3]})
    for client in clients:
        failures = call_until(client, "a", "the change", lambda seen: set(seen.hosts) == names(mesh, 1, 2))
        assert failures == []
    known = json.loads(mesh.server.get("/debug/clients")[1])
    assert json.dumps(known).count('"the-same"') >= 2


def test_objects_that_a_client_would_reject(mesh: Mesh, start: Start) -> None:
    """objects that a client would reject: xds-server rejects them first, with a reason; everything else is served"""
    mesh.serve({"zone-a": mesh.greeters[:1]})
    client = start()
    client.open("a", TARGET)
    assert client.call("a", 2).hosts == 2 * [mesh.greeters[0].name]
    first = mesh.greeters[0].port
    invalid = {
        "name-for-an-address": objects.endpoints("backend.example.com", port=first),
        "the-same-twice": objects.endpoints("127.0.0.1", "127.0.0.1", port=first),
        "port-too-large": objects.endpoints("127.0.0.9", port=70_000),
        "fqdn": objects.endpoints("backend.example.com", port=first) | {"addressType": "FQDN"},
    }
    slices = [objects.endpoint_slice(name, SERVICE, **fields) for name, fields in invalid.items()]
    objects.write(mesh.folder / "invalid.yaml", *slices)
    for name in invalid:
        wait_until(f"{name} to be rejected", lambda name=name: mesh.server.warnings("can't be used", name))  # type: ignore[misc]
    problems = mesh.server.get("/debug/services")[1]
    assert all(name in problems for name in invalid)
    mesh.serve({"zone-a": mesh.greeters[1:2]})
    failures = call_until(client, "a", "both greeters", lambda seen: set(seen.hosts) == names(mesh, 0, 1))
    assert failures == []
    assert NAME in mesh.server.get("/debug/resources")[1]
