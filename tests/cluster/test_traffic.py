"""Routes, policies and zones on a real Kubernetes, by kubectl, as users see them.

Clients call 20 times a second, and no call may fail unless a test expects it. Every test makes its own objects and deletes
them.

REST_SECONDS sets how long the API server is watched for writes when nothing changes (default: 60).
"""

import json
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster as EnvoyCluster

from tests.cluster import binomial, clients, faults, forward, manifests, statuses, waiting
from tests.cluster.clients import Watch
from tests.cluster.kube import ROOT, Cluster, Object
from tests.cluster.manifests import header, policy, route, rule
from tests.cluster.statuses import POLICIES, ROUTES
from tests.support.ads import AdsClient

REST = float(os.environ.get("REST_SECONDS", "60"))
pytestmark = pytest.mark.timeout(300 + REST)

V1, V2, GONE = "hello-server", "hello-server-v2", "gone"
BETA = "hello-client-beta"
"""A client that sends `x-beta: yes`."""
CANARY = ROOT / "k8s" / "examples" / "canary"
ZONE = "topology.kubernetes.io/zone"


@pytest.fixture(scope="module")
def kinds(demo: Cluster) -> Cluster:
    """The demo on a cluster that has the kinds of routes and policies."""
    defined = demo.kubectl("api-resources", "--output", "name").split()
    missing = {ROUTES, POLICIES} - set(defined)
    assert not missing, (
        f"the cluster has no {missing}; GATEWAY_API=PATH-OR-URL names the Gateway API's definitions"
    )
    return demo


@pytest.fixture
def traffic(kinds: Cluster) -> Iterator[Cluster]:
    """The demo; what a test applies is deleted after it."""
    yield kinds
    manifests.delete_all(kinds, f"{ROUTES},{POLICIES},services")
    kinds.kubectl("delete", "--ignore-not-found", "--filename", str(CANARY / "route.yaml"))


@pytest.fixture(scope="module")
def second_version(kind: Cluster, kinds: Cluster, calling_fast: None) -> Iterator[set[str]]:
    """The hosts of the second version in the canary's example, which has another client, too; without its route."""
    kinds.kubectl("apply", "--filename", str(CANARY / "server.yaml"))
    kinds.rolled_out(V2)
    kinds.kubectl("apply", "--kustomize", str(CANARY))
    kinds.kubectl("delete", "--filename", str(CANARY / "route.yaml"))
    kinds.set_environment(BETA, *clients.FAST)
    yield kinds.pod_names(V2)
    kinds.kubectl("delete", "--ignore-not-found", "--cascade=foreground", "--kustomize", str(CANARY))


def accepted(cluster: Cluster, name: str) -> None:
    """Waits as a user does, until a route's backends are found, and checks its conditions."""
    resolved = '.status.parents[0].conditions[?(@.type=="ResolvedRefs")].status'
    cluster.kubectl("wait", "--timeout=30s", f"--for=jsonpath={{{resolved}}}=True", f"grpcroutes/{name}")
    found = statuses.conditions(cluster, ROUTES, name)
    assert {type_: condition.reason for type_, condition in found.items() if condition.holds} == {
        "Accepted": "Accepted",
        "ResolvedRefs": "ResolvedRefs",
    }


# ---- routes ----


def test_a_canary_from_a_tenth_to_all_and_back(
    traffic: Cluster, watch: Watch, second_version: set[str]
) -> None:
    first_version = traffic.pod_names(V1)

    traffic.kubectl("apply", "--filename", str(CANARY / "route.yaml"))
    accepted(traffic, V1)
    waiting.until("replies of v2", lambda: watch.log("hello-client").hosts, second_version.issubset)
    split = Watch(traffic)
    replies = waiting.until(
        "300 replies", lambda: split.log("hello-client").replies, lambda replies: len(replies) >= 300
    )
    least, greatest = binomial.interval(len(replies), 0.1)
    assert least <= sum(host in second_version for host in replies) <= greatest
    assert set(replies) == first_version | second_version

    beta = Watch(traffic, [BETA])
    traffic.kubectl("apply", "--filename", str(CANARY / "by-header.yaml"))
    accepted(traffic, V1)
    watch.until_hosts("hello-client", first_version)
    beta.until_hosts(BETA, second_version)

    traffic.kubectl("apply", "--filename", str(CANARY / "all.yaml"))
    accepted(traffic, V1)
    watch.until_hosts("hello-client", second_version)

    traffic.kubectl("delete", "--filename", str(CANARY / "all.yaml"))
    watch.until_hosts("hello-client", first_version)
    beta.until_hosts(BETA, first_version)
    watch.assert_no_call_failed()
    beta.assert_no_call_failed()
    assert clients.alternate(watch.log("hello-client").replies[-8:], first_version)


def test_a_rule_with_a_bad_expression_is_dropped_alone(
    traffic: Cluster, watch: Watch, second_version: set[str]
) -> None:
    bad = {"method": {"type": "RegularExpression", "service": "greeter.v1.Greeter", "method": "greet("}}
    manifests.apply(traffic, route("bad", rule((V1, 1), match=bad), rule((V2, 1)), parent=V1))

    dropped = statuses.until_condition(traffic, ROUTES, "bad", "PartiallyInvalid", holds=True)
    assert dropped.message.startswith("Dropped Rule")
    assert "greet(" in dropped.message
    assert statuses.conditions(traffic, ROUTES, "bad")["Accepted"].holds
    [event] = waiting.until("an Event", lambda: statuses.events(traffic, ROUTES, "bad"), bool)
    assert event["type"] == "Warning"
    assert "greet(" in event["message"]

    watch.until_hosts("hello-client", second_version)  # the other rule is served
    watch.assert_no_call_failed()


def test_a_missing_backend_fails_its_share_at_once_until_it_exists(
    traffic: Cluster, watch: Watch, second_version: set[str]
) -> None:
    beta = Watch(traffic, [BETA])
    to_gone = rule((GONE, 1), match=header("x-beta", "yes"))
    manifests.apply(traffic, route(GONE, to_gone, rule((V1, 1)), parent=V1))

    unresolved = statuses.until_condition(traffic, ROUTES, GONE, "ResolvedRefs", holds=False)
    assert unresolved.reason == "BackendNotFound"
    assert GONE in unresolved.message
    assert statuses.conditions(traffic, ROUTES, GONE)["Accepted"].holds
    for failure in waiting.until(
        "failed calls", lambda: beta.log(BETA).failures, lambda found: len(found) > 2
    ):
        assert failure["status"] == "UNAVAILABLE"
        assert f"BackendNotFound: Service default/{GONE}" in str(failure["details"])

    manifests.apply(traffic, manifests.service(GONE, selects=V2))
    statuses.until_condition(traffic, ROUTES, GONE, "ResolvedRefs", holds=True)
    Watch(traffic, [BETA]).until_hosts(BETA, second_version)
    watch.assert_no_call_failed()


# ---- policies ----


@pytest.mark.parametrize(
    ("field", "spec"),
    [
        ("spec.timeout", {"timeout": "1s"}),
        ("spec.retry.attempts", {"retry": {"codes": ["UNAVAILABLE"], "attempts": 5}}),
        ("spec.loadBalancing", {"loadBalancing": {"type": "RoundRobin", "ringHash": {"header": "x-user"}}}),
    ],
)
def test_what_clients_would_refuse_is_rejected_by_kubectl_apply(
    kinds: Cluster, field: str, spec: Object
) -> None:
    with pytest.raises(AssertionError, match=f"is invalid: .*{re.escape(field)}"):
        manifests.apply(kinds, policy("refused", target=V1, **spec))


def test_the_older_of_two_policies_in_conflict_wins(traffic: Cluster, watch: Watch) -> None:
    # By their names alone, the younger one would win.
    older, younger = "b-older", "a-younger"
    fault = {"abort": {"code": "RESOURCE_EXHAUSTED", "percent": 100}}
    manifests.apply(traffic, policy(older, target="howdy-server", fault=fault))
    statuses.until_condition(traffic, POLICIES, older, "Accepted", holds=True)
    created = statuses.one(traffic, POLICIES, older)["metadata"]["creationTimestamp"]
    waiting.until(
        "the second after the first policy's",
        lambda: datetime.now(UTC),
        lambda now: now >= datetime.fromisoformat(created) + timedelta(seconds=1),
    )
    manifests.apply(traffic, policy(younger, target="howdy-server", timeout="20s"))
    refused = statuses.until_condition(traffic, POLICIES, younger, "Accepted", holds=False)
    assert refused.reason == "Conflicted"
    assert older in refused.message
    assert statuses.conditions(traffic, POLICIES, older)["Accepted"].holds
    failures = waiting.until("failed calls", lambda: watch.log("howdy-client").failures, bool)
    assert {failure["status"] for failure in failures} == {"RESOURCE_EXHAUSTED"}

    traffic.kubectl("delete", f"{POLICIES}/{older}")
    statuses.until_condition(traffic, POLICIES, younger, "Accepted", holds=True)
    watch.until_hosts("howdy-client", traffic.pod_names("howdy-server"))
    healed = Watch(traffic)
    waiting.until("20 replies", lambda: healed.log("howdy-client"), lambda log: len(log.replies) >= 20)
    healed.assert_no_call_failed()
    assert not watch.log("hello-client").failures, "clients of the other service are not affected"


def test_a_policy_waits_for_its_target(traffic: Cluster) -> None:
    manifests.apply(traffic, policy("early", target="late", timeout="20s"))
    missing = statuses.until_condition(traffic, POLICIES, "early", "Accepted", holds=False)
    assert missing.reason == "TargetNotFound"

    manifests.apply(traffic, manifests.service("late", selects=V1))
    found = statuses.until_condition(traffic, POLICIES, "early", "Accepted", holds=True)
    assert found.reason == "Accepted"


# ---- zones ----


@pytest.fixture
def near(kind: Cluster, traffic: Cluster, watch: Watch) -> Iterator[Cluster]:
    """The demo, whose clients of hello-server prefer the pods of their zone."""
    traffic.kubectl("patch", f"service/{V1}", "--patch", '{"spec": {"trafficDistribution": "PreferClose"}}')
    yield traffic
    traffic.kubectl("patch", f"service/{V1}", "--patch", '{"spec": {"trafficDistribution": null}}')


def pods_by_node(cluster: Cluster, service: str) -> dict[str, set[str]]:
    """Returns the names of the pods of a service by the node that runs them."""
    found: dict[str, set[str]] = {}
    for pod in cluster.pods(service):
        found.setdefault(pod["spec"]["nodeName"], set()).add(pod["metadata"]["name"])
    return found


def test_a_client_stays_in_its_zone_and_spills_over_when_that_has_no_pod(near: Cluster, watch: Watch) -> None:
    zones = {node["metadata"]["name"]: node["metadata"]["labels"].get(ZONE) for node in near.get("nodes")}
    home, other = sorted(near.workers(), key=lambda node: node not in pods_by_node(near, "hello-client"))
    assert zones[home] != zones[other]

    pods = pods_by_node(near, V1)
    assert pods.keys() == {home, other}
    watch.until_hosts("hello-client", pods[home])

    with faults.cordoned(near, home):
        near.kubectl("delete", "pods", *pods[home], "--wait=false")
        near.rolled_out(V1)
        away = pods_by_node(near, V1)
        assert away.keys() == {other}
        watch.until_hosts("hello-client", away[other])

    with faults.cordoned(near, other):
        near.scale(V1, 3)
        back = pods_by_node(near, V1)
        assert back.keys() == {home, other}
        watch.until_hosts("hello-client", back[home])
    watch.assert_no_call_failed()


# ---- what is written, and how often ----


@pytest.fixture
def two_replicas(kind: Cluster, traffic: Cluster, watch: Watch) -> Iterator[Cluster]:
    """The demo with two replicas of xds-server; a test may set POLL_INTERVAL."""
    traffic.scale("xds-server", 2)
    yield traffic
    traffic.set_environment("xds-server", "POLL_INTERVAL-")


def test_two_replicas_write_each_status_once_and_nothing_at_rest(
    two_replicas: Cluster, watch: Watch, figures: list[str]
) -> None:
    cluster, name = two_replicas, "written"
    objects = ((ROUTES, name), (POLICIES, name))

    def answered() -> dict[str, int]:
        return {resource: statuses.writes(cluster, resource, "20.") for resource, _ in objects}

    def attempted() -> dict[str, int]:
        return {resource: statuses.writes(cluster, resource) for resource, _ in objects}

    def change(number: int) -> None:
        manifests.apply(
            cluster,
            route(name, rule((V1, number)), parent=V1),
            policy(name, target=V1, timeout=f"{10 + number}s"),
        )
        for resource, object_name in objects:
            statuses.conditions(cluster, resource, object_name)

    before, before_attempts = answered(), attempted()
    for number in range(1, 6):
        change(number)

    # Another controller's entry stays, whatever happens to ours.
    [ours] = statuses.entries(cluster, ROUTES, name)
    foreign = {**ours, "controllerName": "example.com/another"}
    entry = [{"op": "add", "path": "/status/parents/-", "value": foreign}]
    cluster.kubectl(
        "patch", f"{ROUTES}/{name}", "--subresource=status", "--type=json", f"--patch={json.dumps(entry)}"
    )
    change(6)
    assert statuses.entries(cluster, ROUTES, name, "example.com/another") == [foreign]

    # Replicas that start, polls, and pods that come and go write nothing.
    cluster.set_environment("xds-server", "POLL_INTERVAL=5")
    at_rest = [statuses.one(cluster, *one)["metadata"] for one in objects]
    attempts_at_rest = attempted()
    cluster.kubectl("scale", "--replicas=3", f"deployments.apps/{V1}")
    waiting.hold(REST)
    assert [statuses.one(cluster, *one)["metadata"] for one in objects] == at_rest
    attempts = attempted()
    assert attempts == attempts_at_rest
    written = {resource: count - before[resource] for resource, count in answered().items()}
    assert written == {ROUTES: 6 + 1, POLICIES: 6}, "6 changes, and the other controller's entry"
    refused = sum(attempts.values()) - sum(before_attempts.values()) - sum(written.values())
    figures.append(
        f"two replicas, 12 changes of generation: 12 statuses written, {refused} writes refused (409)"
    )

    to_gateway = {"spec": {"parentRefs": [{"name": "gateway"}]}}
    cluster.kubectl("patch", f"{ROUTES}/{name}", "--type=merge", f"--patch={json.dumps(to_gateway)}")
    waiting.until("our entry to go", lambda: statuses.entries(cluster, ROUTES, name), lambda found: not found)
    assert statuses.entries(cluster, ROUTES, name, "example.com/another") == [foreign]
    watch.assert_no_call_failed()


def test_a_clients_refusal_becomes_an_event_on_the_service(traffic: Cluster) -> None:
    name = "howdy-server.default:50052"
    with forward.forwarded(traffic, "xds-server", 18000) as address, AdsClient(address) as client:
        client.reason = f"{name}: refused by a test"
        client.subscribe(EnvoyCluster, name)
        [event] = waiting.until(
            "an Event",
            lambda: [
                event
                for event in statuses.events(traffic, "services", "howdy-server")
                if "refused by a test" in event["message"]
            ],
            bool,
        )
    assert event["type"] == "Warning"
    assert "CDS" in event["message"]
