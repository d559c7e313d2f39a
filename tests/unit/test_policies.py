"""GRPCBackendPolicies: what they say, for which ports and routes, which of several counts, and their statuses."""

import itertools
import sys
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support.convert import convert
from tests.support.policies import ACCEPTED, EVERYTHING, REFUSED, ROUTE, SERVICE, policy
from xds_server.errors import MalformedObjectError
from xds_server.mesh import policy_spec
from xds_server.mesh.policies import PolicyAssembler
from xds_server.mesh.problems import Problem
from xds_server.mesh.statuses import Condition
from xds_server.model import traffic
from xds_server.model.service import Port, PortName, Service, ServiceName
from xds_server.model.tables import POLICIES, SECURED, Entry
from xds_server.model.traffic import CLOSED, CallPolicy, Policy
from xds_server.objects import meta

WEB = ServiceName("shop", "web")
GRPC, ADMIN = PortName(WEB, 80), PortName(WEB, 81)
SPLIT = ("shop", "split")
RULE = {**ROUTE, "sectionName": "canary"}
GRPC_PORT = {**SERVICE, "sectionName": "grpc"}


def service(name=WEB, **ports):
    return Service(name, tuple(Port(port, number, is_grpc=True) for port, number in ports.items()))


def route(*rules):
    return convert(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GRPCRoute",
            "metadata": {"name": "split", "namespace": "shop"},
            "spec": {"rules": [{"name": rule} for rule in rules]},
        }
    )


class Mesh:
    """A Service with two ports, a route with a named rule, and the policies under test."""

    def __init__(self):
        self.services = {WEB: service(grpc=80, admin=81)}
        self.routes = {SPLIT: route("canary")}
        self.idle: dict[tuple[meta.Key, str], str] = {}
        self.policies = PolicyAssembler(
            self.services, self.routes, lambda route, rule: self.idle.get((route, rule), "")
        )

    def put(self, *documents):
        for document in documents:
            found = convert(document)
            self.policies.put(meta.key(found), found)
        return self.flush()

    def remove(self, name):
        self.policies.put(("shop", name), None)
        return self.flush()

    def flush(self):
        """What changed, by port: the policy, or None."""
        changes = self.policies.flush()
        self.policies.judge()
        assert all(entry.table in {POLICIES, SECURED} for entry in changes)
        return {entry.key: value for entry, value in changes.items() if entry.table is POLICIES}

    def timeouts(self, *documents):
        """The timeouts by port, after more policies."""
        return {port: found and found.call.timeout for port, found in self.put(*documents).items()}

    def conditions(self, name):
        """(status, reason) of each target of a policy."""
        found = self.policies.status(("shop", name))
        assert found is not None
        conditions = [condition for entry in found.entries for condition in entry.conditions]
        assert {condition.type for condition in conditions} <= {"Accepted"}
        return [(condition.status, condition.reason) for condition in conditions]

    def message(self, name):
        found = self.policies.status(("shop", name))
        assert found is not None
        [entry] = found.entries
        return entry.conditions[0].message

    def reasons(self):
        return [(problem.key, problem.reason) for problem in self.policies.problems()]


@pytest.fixture
def mesh():
    return Mesh()


ACCEPTED_ONCE = [(True, "Accepted")]


# ---- what a policy says ----


def test_every_field(mesh):
    expected = Policy(
        call=CallPolicy(
            timeout=10.0,
            retry=traffic.Retry(("CANCELLED", "UNAVAILABLE"), attempts=2, backoff=0.05),
            fault=traffic.Fault(traffic.Abort("UNAVAILABLE", 10), traffic.Delay(0.1, 20)),
        ),
        max_concurrent_requests=1000,
        outlier_detection=traffic.OutlierDetection(
            interval=5.0,
            base_ejection_time=60.0,
            max_ejection_time=5400.0,
            max_ejection_percent=50,
            failure_percentage=traffic.FailurePercentage(80, 3, 10, 90),
            success_rate=traffic.SuccessRate(2000, 4, 20, 80),
        ),
        load_balancing=traffic.RingHash("x-user", 2048),
        tls=traffic.Tls(
            is_mutual=True,
            subject_alt_names=("web.shop.svc", "spiffe://cluster.local/ns/shop/sa/web"),
            provider="ours",
        ),
        authorization=traffic.Authorization(
            (
                traffic.Permission(("spiffe://cluster.local/ns/shop/sa/cart",), ("/shop.Cart/Add",)),
                traffic.Permission(("spiffe://cluster.local/ns/admin/sa/*",)),
            )
        ),
    )
    assert mesh.put(policy(**EVERYTHING)) == {GRPC: expected, ADMIN: expected}
    assert mesh.conditions("web") == ACCEPTED_ONCE
    assert mesh.reasons() == []


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, Policy()),
        ({"loadBalancing": {"type": "RoundRobin"}}, Policy()),
        (
            {"loadBalancing": {"type": "WeightedRoundRobin"}},
            Policy(load_balancing=traffic.WeightedRoundRobin()),
        ),
        (
            {
                "loadBalancing": {
                    "type": "WeightedRoundRobin",
                    "weightedRoundRobin": {
                        "blackoutPeriod": "5s",
                        "weightUpdatePeriod": "200ms",
                        "outOfBandReportingPeriod": "1m",
                    },
                }
            },
            Policy(load_balancing=traffic.WeightedRoundRobin(5.0, 0.2, 60.0)),
        ),
        (
            {"loadBalancing": {"type": "RingHash", "ringHash": {"header": "x-user"}}},
            Policy(load_balancing=traffic.RingHash("x-user")),
        ),
        (
            {"retry": {"codes": ["INTERNAL"]}},
            Policy(CallPolicy(retry=traffic.Retry(("INTERNAL",), attempts=1, backoff=0.025))),
        ),
        (
            {"fault": {"abort": {"code": "ABORTED"}}},
            Policy(CallPolicy(fault=traffic.Fault(abort=traffic.Abort("ABORTED", 100)))),
        ),
        (
            {"fault": {"delay": {"duration": "1s"}}},
            Policy(CallPolicy(fault=traffic.Fault(delay=traffic.Delay(1.0, 100)))),
        ),
        (
            {"outlierDetection": {"failurePercentage": {}}},
            Policy(
                outlier_detection=traffic.OutlierDetection(failure_percentage=traffic.FailurePercentage())
            ),
        ),
        (
            {"outlierDetection": {"successRate": {}, "baseEjectionTime": "10m"}},
            Policy(
                outlier_detection=traffic.OutlierDetection(
                    base_ejection_time=600.0, max_ejection_time=600.0, success_rate=traffic.SuccessRate()
                )
            ),
        ),
    ],
)
def test_the_defaults(mesh, spec, expected):
    assert mesh.put(policy(**spec))[GRPC] == expected


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_the_api_server_accepts_is_used(mesh, name):
    mesh.put(ACCEPTED[name])
    [key] = [meta.key(convert(ACCEPTED[name]))]
    reasons = {reason for _, reason in mesh.conditions(key[1])}
    assert reasons <= {"Accepted", "TargetNotFound"}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_api_server_rejects_is_refused_with_the_field(mesh, name):
    document, field = REFUSED[name]
    try:
        convert(document)
    except MalformedObjectError as error:
        assert field.split(".")[-1] in str(error)  # noqa: PT017 - some are refused by their shape, some by value
        return
    # A security policy closes its Services: without it, they would be open to all.
    closed = {"tls", "authorization"} & document["spec"].keys() and "for a route" not in name
    assert set(mesh.put(document).values()) == ({CLOSED} if closed else set())
    [(_, reason)] = mesh.reasons()
    assert field in reason
    assert "sorted(" not in reason, "a text with its values filled in"
    result = "as it is a security policy, this is closed: Service web" if closed else "the policy is not used"
    assert reason.endswith(f"; {result}")
    targets = document["spec"].get("targetRefs", [])
    assert mesh.conditions(document["metadata"]["name"]) == [(False, "Invalid")] * len(targets)


def test_a_closed_policy_moves_to_another_target(mesh):
    """As the same closed policy stands for all that can't be used, its targets have to be looked at."""
    bad: dict[str, Any] = {"tls": {"mode": "Strict"}}
    assert mesh.put(policy("p", GRPC_PORT, **bad)) == {GRPC: CLOSED}
    assert mesh.put(policy("p", **bad)) == {ADMIN: CLOSED}
    assert mesh.put(policy("p", {**SERVICE, "name": "gone"}, **bad)) == {GRPC: None, ADMIN: None}
    assert [reason.rpartition("; ")[2] for _, reason in mesh.reasons()] == ["the policy is not used"]
    assert mesh.remove("p") == {}
    assert mesh.reasons() == []


def test_a_policy_of_a_port_that_replaces_a_security_policy_is_told(mesh):
    tls: dict[str, Any] = {"tls": {"mode": "Simple", "subjectAltNames": ["web.shop"]}}
    mesh.put(policy("secure", **tls), policy("port", GRPC_PORT, timeout="10s"))
    assert mesh.reasons() == [
        (
            ("shop", "port"),
            "Service web port grpc is not secured by GRPCBackendPolicy secure: this policy replaces it for the port",
        )
    ]
    mesh.put(policy("port", GRPC_PORT, timeout="10s", **tls))
    assert mesh.reasons() == []
    mesh.put(policy("port", GRPC_PORT, timeout="10s"))
    mesh.remove("secure")
    assert mesh.reasons() == []


# ---- ports ----


def test_a_policy_of_a_port_replaces_that_of_the_service_for_it(mesh):
    mesh.put(policy("all", timeout="10s", maxConcurrentRequests=5))
    changes = mesh.put(policy("port", GRPC_PORT, timeout="20s"))
    assert changes == {GRPC: Policy(CallPolicy(timeout=20.0))}
    assert mesh.conditions("all") == mesh.conditions("port") == ACCEPTED_ONCE
    assert mesh.remove("port")[GRPC].max_concurrent_requests == 5
    assert mesh.remove("all") == {GRPC: None, ADMIN: None}


def test_ports_are_followed(mesh):
    mesh.put(policy("all", timeout="10s"), policy("port", {**SERVICE, "sectionName": "new"}, timeout="20s"))
    assert mesh.conditions("port") == [(False, "TargetNotFound")]
    mesh.services[WEB] = service(grpc=80, new=82)
    mesh.policies.touch_service(WEB)
    new = PortName(WEB, 82)
    assert {port: found and found.call.timeout for port, found in mesh.flush().items()} == {
        ADMIN: None,
        new: 20.0,
    }
    assert mesh.conditions("port") == ACCEPTED_ONCE


def test_a_service_that_comes_and_goes(mesh):
    del mesh.services[WEB]
    assert mesh.put(policy(timeout="10s")) == {}
    assert mesh.conditions("web") == [(False, "TargetNotFound")]
    assert "no Service web" in mesh.message("web")
    mesh.policies.take_restated()

    mesh.services[WEB] = service(grpc=80)
    mesh.policies.touch_service(WEB)
    assert mesh.flush() == {GRPC: Policy(CallPolicy(timeout=10.0))}
    assert mesh.conditions("web") == ACCEPTED_ONCE
    assert mesh.policies.take_restated() == {("shop", "web")}
    assert mesh.reasons() == []

    del mesh.services[WEB]
    mesh.policies.touch_service(WEB)
    assert mesh.flush() == {GRPC: None}
    assert mesh.conditions("web") == [(False, "TargetNotFound")]


def test_ports_without_a_name_have_the_policy_of_the_service(mesh):
    mesh.services[WEB] = service(**{"": 80})
    assert mesh.timeouts(policy(timeout="10s")) == {GRPC: 10.0}


def test_targets_are_in_the_namespace_of_the_policy(mesh):
    assert mesh.put(policy(namespace="other", timeout="10s")) == {}
    assert mesh.policies.status(("other", "web")).entries[0].conditions[0].reason == "TargetNotFound"


# ---- routes ----


def test_a_policy_of_a_rule_goes_over_that_of_its_route_field_by_field(mesh):
    retry = {"codes": ["INTERNAL"]}
    assert (
        mesh.put(
            policy("route", ROUTE, timeout="10s", retry=retry),
            policy("rule", RULE, timeout="0s", fault={"abort": {"code": "ABORTED"}}),
        )
        == {}
    )
    both = traffic.Retry(("INTERNAL",))
    assert mesh.policies.of_route(SPLIT, "") == CallPolicy(10.0, both)
    assert mesh.policies.of_route(SPLIT, "other") == CallPolicy(10.0, both)
    assert mesh.policies.of_route(SPLIT, "canary") == CallPolicy(
        0.0, both, traffic.Fault(traffic.Abort("ABORTED", 100))
    )
    assert mesh.policies.of_route(("shop", "other"), "canary") == CallPolicy()
    assert mesh.conditions("route") == mesh.conditions("rule") == ACCEPTED_ONCE


def test_routes_are_touched_by_their_policies_alone(mesh):
    mesh.put(policy("route", ROUTE, timeout="10s"))
    assert mesh.policies.take_touched_routes() == {SPLIT}
    assert mesh.policies.take_touched_routes() == set()
    mesh.put(policy("service", timeout="10s"))
    assert mesh.policies.take_touched_routes() == set()
    mesh.put(policy("route", {**ROUTE, "name": "other"}, timeout="10s"))
    assert mesh.policies.take_touched_routes() == {SPLIT, ("shop", "other")}
    assert mesh.policies.of_route(SPLIT, "") == CallPolicy()
    mesh.remove("route")
    assert mesh.policies.take_touched_routes() == {("shop", "other")}


def test_a_status_alone_touches_no_route_and_changes_nothing(mesh):
    document = policy("route", ROUTE, SERVICE, timeout="10s")
    mesh.put(document)
    mesh.policies.take_touched_routes()
    document["status"] = {"ancestors": []}
    document["metadata"]["generation"] = 3
    assert mesh.put(document) == {}
    assert mesh.policies.take_touched_routes() == set()
    assert mesh.policies.status(("shop", "route")).generation == 3


def test_a_route_that_comes_and_goes(mesh):
    del mesh.routes[SPLIT]
    mesh.put(policy("route", ROUTE), policy("rule", RULE))
    assert mesh.conditions("route") == mesh.conditions("rule") == [(False, "TargetNotFound")]
    mesh.policies.take_restated()

    mesh.routes[SPLIT] = route("stable")
    mesh.policies.touch_route(SPLIT)
    mesh.flush()
    assert mesh.policies.take_restated() == {("shop", "route"), ("shop", "rule")}
    assert mesh.conditions("route") == ACCEPTED_ONCE
    assert mesh.conditions("rule") == [(False, "TargetNotFound")]
    assert "no rule with the name canary" in mesh.message("rule")

    mesh.routes[SPLIT] = route("canary")
    mesh.policies.touch_route(SPLIT)
    mesh.flush()
    assert mesh.conditions("rule") == ACCEPTED_ONCE
    assert mesh.reasons() == []


def test_a_policy_of_a_route_that_is_not_served_has_no_effect(mesh):
    mesh.put(policy("route", ROUTE, timeout="10s"), policy("rule", RULE), policy("service"))
    mesh.policies.take_restated()
    mesh.idle = {(SPLIT, ""): "it is not accepted", (SPLIT, "canary"): "its rule is dropped"}
    mesh.policies.touch_route(SPLIT)
    mesh.flush()
    assert mesh.policies.take_restated() == {("shop", "route"), ("shop", "rule")}
    for name, why in (("route", "it is not accepted"), ("rule", "its rule is dropped")):
        [entry] = mesh.policies.status(("shop", name)).entries
        message = f"The policy has no effect at present: {why}"
        assert entry.conditions == (
            Condition("Accepted", status=True, reason="Accepted", message=message),
            Condition("Programmed", status=False, reason="TargetNotServed", message=message),
        )
        assert (("shop", name), message) in mesh.reasons()
    assert mesh.conditions("service") == ACCEPTED_ONCE
    mesh.idle.clear()
    mesh.policies.touch_route(SPLIT)
    mesh.flush()
    assert mesh.conditions("route") == mesh.conditions("rule") == ACCEPTED_ONCE
    assert mesh.reasons() == []


# ---- conflicts ----


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_oldest_policy_of_a_target_wins_then_the_name(mesh, order):
    documents = [
        policy("c", created="2026-01-01T00:00:00Z", timeout="10s"),
        policy("a", created="2026-01-02T00:00:00Z", timeout="20s"),
        policy("b", created="2026-01-02T00:00:00Z", timeout="30s"),
    ]
    for index in order:
        mesh.put(documents[index])
    lost = [(False, "Conflicted")]
    assert [mesh.conditions(name) for name in "abc"] == [lost, lost, ACCEPTED_ONCE]
    assert "GRPCBackendPolicy c" in mesh.message("a")
    mesh.policies.take_restated()

    assert {found.call.timeout for found in mesh.remove("c").values()} == {20.0}
    assert mesh.policies.take_restated() == {("shop", name) for name in "abc"}
    assert [mesh.conditions(name) for name in "ab"] == [ACCEPTED_ONCE, lost]
    assert [key for key, _ in mesh.reasons()] == [("shop", "b")]


def test_a_route_that_loses_its_policy_has_the_next_one(mesh):
    mesh.put(policy("a", ROUTE, timeout="10s"), policy("b", ROUTE, timeout="20s"))
    assert mesh.conditions("b") == [(False, "Conflicted")]
    mesh.policies.take_restated()
    mesh.remove("a")
    assert mesh.policies.of_route(SPLIT, "").timeout == 20.0
    assert mesh.conditions("b") == ACCEPTED_ONCE
    assert mesh.policies.take_restated() == {("shop", "a"), ("shop", "b")}
    assert mesh.reasons() == []


def test_a_policy_may_lose_one_target_and_have_another(mesh):
    mesh.put(policy("a", timeout="10s"), policy("b", SERVICE, RULE, GRPC_PORT, timeout="20s"))
    assert mesh.conditions("b") == [(False, "Conflicted"), (True, "Accepted"), (True, "Accepted")]
    assert mesh.policies.of_route(SPLIT, "canary").timeout == 20.0


def test_a_refused_policy_conflicts_with_none(mesh):
    mesh.put(policy("a", timeout="1s"))
    assert mesh.timeouts(policy("b", timeout="20s")) == {GRPC: 20.0, ADMIN: 20.0}
    assert mesh.conditions("a") == [(False, "Invalid")]
    assert mesh.conditions("b") == ACCEPTED_ONCE


def test_a_policy_that_becomes_invalid_is_no_longer_used(mesh):
    mesh.put(policy(timeout="10s"))
    assert mesh.put(policy(timeout="1s")) == {GRPC: None, ADMIN: None}
    assert mesh.put(policy(timeout="10s"))[GRPC] == Policy(CallPolicy(timeout=10.0))


# ---- statuses and problems ----


def test_a_status_names_the_targets_as_the_spec_does(mesh):
    document = policy("p", SERVICE, RULE)
    document["metadata"]["generation"] = 7
    mesh.put(document)
    found = mesh.policies.status(("shop", "p"))
    assert found.generation == 7
    assert [entry.ref for entry in found.entries] == [SERVICE, RULE]
    assert mesh.policies.status(("shop", "unknown")) is None
    mesh.remove("p")
    assert mesh.policies.status(("shop", "p")) is None
    assert mesh.policies.take_restated() == {("shop", "p")}


def test_what_is_not_used_is_a_problem(mesh):
    mesh.put(policy("bad", timeout="1s"))
    mesh.put(policy("other"))
    [problem] = mesh.policies.problems_of(("shop", "bad"))
    assert problem.key == ("shop", "bad")
    assert "spec.timeout is 1s; expected 5s to 24h" in problem.reason
    assert mesh.policies.problems_of(("shop", "other")) == ()


@pytest.fixture
def bug(monkeypatch):
    """Makes reading of specs with a timeout of 20 s fail, as a bug would; returns what mends it."""
    read = policy_spec.read

    def fail(spec):
        if spec.timeout == "20s":
            raise RuntimeError("a bug")
        return read(spec)

    with monkeypatch.context() as patched:
        patched.setattr(policy_spec, "read", fail)
        yield patched.undo


def test_a_failure_leaves_a_policy_as_it_was_and_harms_no_other(mesh, bug):
    mesh.put(policy("bad", GRPC_PORT, timeout="10s"))
    with capture_logs() as lines:
        assert mesh.timeouts(
            policy("bad", GRPC_PORT, timeout="20s"),
            policy("good", {**SERVICE, "sectionName": "admin"}, timeout="30s"),
        ) == {ADMIN: 30.0}
    assert [line["event"] for line in lines if line["log_level"] == "error"] == [
        "policy can't be read; it stays as it was"
    ]
    [problem] = mesh.policies.problems()
    assert problem.key == ("shop", "bad")
    assert "stays as it was" in problem.reason
    assert mesh.conditions("bad") == ACCEPTED_ONCE

    bug()
    assert mesh.timeouts(policy("bad", GRPC_PORT, timeout="20s")) == {GRPC: 20.0}
    assert list(mesh.policies.problems()) == []


@pytest.mark.usefixtures("bug")
def test_a_policy_that_gets_security_and_can_not_be_read_closes_its_service(mesh):
    mesh.put(policy(timeout="10s"))
    tls: dict[str, Any] = {"tls": {"mode": "Simple", "subjectAltNames": ["web.shop"]}}
    with capture_logs():
        assert mesh.put(policy(timeout="20s", **tls)) == {GRPC: CLOSED, ADMIN: CLOSED}
        assert mesh.put(policy("other", timeout="20s")) == {}
    results = {key: reason.rpartition("; ")[2] for key, reason in mesh.reasons() if "a bug" in reason}
    assert results == {
        ("shop", "web"): "as it is a security policy, this is closed: Service web",
        ("shop", "other"): "the policy is not used",
    }


def lines_run(action):
    """Counts the lines of Python that an action runs."""
    lines = 0

    def trace(_frame, event, _argument):
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return lines


def test_a_change_costs_the_same_whatever_the_number_of_policies():
    def cost(number):
        names = [ServiceName("shop", f"s{index}") for index in range(number)]
        policies = PolicyAssembler({name: service(name, grpc=80) for name in names}, {}, lambda *_: "")
        for name in names:
            found = convert(policy(name.name, {**SERVICE, "name": name.name}, timeout="10s"))
            policies.put(meta.key(found), found)
        assert len(policies.flush()) == number
        policies.judge()
        policies.take_restated()
        found = convert(policy("s0", {**SERVICE, "name": "s0"}, timeout="20s"))

        def change():
            policies.put(meta.key(found), found)
            [entry] = policies.flush()
            policies.judge()
            assert entry == Entry(POLICIES, PortName(names[0], 80))
            assert policies.take_restated() == {meta.key(found)}

        return lines_run(change)

    assert cost(1) == cost(1000)


def test_problems_name_the_kind(mesh):
    mesh.put(policy("bad", ROUTE, maxConcurrentRequests=1))
    [problem] = mesh.policies.problems()
    assert isinstance(problem, Problem)
    assert problem.kind == "GRPCBackendPolicy"
