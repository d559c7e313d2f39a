"""GRPCRoutes: which rules they make on which ports, and what their statuses say."""

import random
from typing import Any

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.support.routes import header, method, route, rule
from xds_server.mesh.routes import RouteAssembler
from xds_server.mesh.statuses import Condition
from xds_server.model.service import Port, PortName, Service, ServiceName
from xds_server.model.tables import CONSUMED, ROUTES, Entry
from xds_server.model.traffic import (
    EVERY_PATH,
    Backend,
    CallPolicy,
    Header,
    Match,
    Path,
    PathType,
    RouteScope,
    Rule,
    Unavailable,
    UnavailableReason,
)
from xds_server.objects.meta import key
from xds_server.resources.names import parse_unavailable

WEB, V2, API = ServiceName("shop", "web"), ServiceName("shop", "web-v2"), ServiceName("shop", "api")
PORT = PortName(WEB, 80)


def service(name, *ports):
    return Service(name, ports or (Port("grpc", 80, is_grpc=True),))


def services():
    return {
        WEB: service(WEB),
        V2: service(V2),
        API: service(API, Port("grpc", 80, is_grpc=True), Port("admin", 81, is_grpc=False)),
    }


class Mesh(RouteAssembler):
    """An assembler with some services, and the entries that it published."""

    def __init__(self, *routes, policies=None):
        self.services = services()
        self.policies = policies or {}
        self.entries = {}
        self.consumed = {}
        super().__init__(self.services, lambda route, name: self.policies.get((route, name), CallPolicy()))
        for item in routes:
            self.put(key(item), item)
        self.changed()

    def changed(self):
        """Flushes; returns the ports whose entries changed."""
        return {scope.port for scope in self.changed_scopes()}

    def changed_scopes(self):
        """Flushes; returns the scopes whose entries changed."""
        changes = self.flush()
        for entry, value in changes.items():
            known = {ROUTES: self.entries, CONSUMED: self.consumed}[entry.table]
            assert known.get(entry.key) != value
            if value is None:
                del known[entry.key]
            else:
                known[entry.key] = value
        assert set(self.consumed) == {scope.port for scope in self.entries if scope.namespace}
        assert all(self.consumed.values())
        return {entry.key for entry in changes if entry.table is ROUTES}

    @property
    def ports(self):
        """The ports that have any rules."""
        return {scope.port for scope in self.entries}

    def rules(self, port=PORT, namespace=None):
        """The rules of a port, for clients of a namespace with rules of their own, or for all others."""
        return self.entries.get(RouteScope(port, namespace or ""))

    def stated(self, name="canary", namespace="shop"):
        """The status of a route that exists."""
        status = self.status((namespace, name))
        assert status is not None
        return status

    def conditions(self, name="canary", namespace="shop", parent=0):
        """The conditions for one parent, as {type: status reason}."""
        found = self.stated(name, namespace).entries[parent].conditions
        return {each.type: f"{each.status} {each.reason}" for each in found}

    def message(self, condition, name="canary"):
        """The message of a condition."""
        [found] = [each for each in self.stated(name).entries[0].conditions if each.type == condition]
        return found.message

    def reasons(self):
        return [problem.reason for problem in self.problems()]


def unavailable(text):
    """The backend with that text."""
    reason, _, detail = text.partition(": ")
    return Unavailable(UnavailableReason(reason), detail)


GOOD = {"Accepted": "True Accepted", "ResolvedRefs": "True ResolvedRefs"}
TO_WEB = (Backend(PORT),)


def matches(*found):
    """The matches of a route with one rule that has these."""
    return [each.match for each in Mesh(route(rule(*found))).rules()]


def dropped(**fields):
    """The message about a rule with these fields, beside one that is served."""
    mesh = Mesh(route({**rule(), **fields}, rule(method("a.B", "C"))))
    assert [each.match.path.value for each in mesh.rules()] == ["/a.B/C"]
    assert mesh.conditions()["Accepted"] == "True Accepted"
    assert mesh.conditions()["PartiallyInvalid"] == "True UnsupportedValue"
    message = mesh.message("PartiallyInvalid")
    assert message.startswith("Dropped Rule rules[0]")
    assert any(reason.startswith("dropped rule rules[0]") for reason in mesh.reasons())
    return message


# --- Where a route is attached -------------------------------------------------------------------------------------


def test_a_route_replaces_the_implicit_route():
    mesh = Mesh(route(rule(to=[{"name": "web-v2", "port": 80}])))
    assert mesh.entries == {RouteScope(PORT): (Rule(Match(), (Backend(PortName(V2, 80)),)),)}
    assert mesh.conditions() == GOOD
    assert mesh.reasons() == []


@pytest.mark.parametrize(
    ("parent", "numbers"),
    [
        ({}, [80, 81]),
        ({"port": 81}, [81]),
        ({"sectionName": "grpc"}, [80]),
        ({"sectionName": ""}, [80, 81]),
        ({"sectionName": "grpc", "port": 80}, [80]),
        ({"sectionName": "grpc", "port": 81}, []),
        ({"port": 82}, []),
        ({"port": -1}, []),
        ({"sectionName": "gone"}, []),
        ({"namespace": "shop"}, [80, 81]),
        ({"namespace": "other"}, []),
    ],
)
def test_ports_of_a_parent(parent, numbers):
    mesh = Mesh(route(rule(), parents=[{"name": "api", **parent}]))
    assert sorted(port.number for port in mesh.ports) == numbers
    assert mesh.conditions()["Accepted"] == ("True Accepted" if numbers else "False NoMatchingParent")
    assert bool(mesh.reasons()) is not bool(numbers)


def test_a_parent_that_does_not_exist_until_later():
    mesh = Mesh(route(rule(), parents=[{"name": "new"}]))
    assert mesh.conditions() == {"Accepted": "False NoMatchingParent", "ResolvedRefs": "True ResolvedRefs"}
    name = ServiceName("shop", "new")
    mesh.services[name] = service(name)
    mesh.touch_service(name)
    assert mesh.changed() == {PortName(name, 80)}
    assert mesh.conditions() == GOOD
    mesh.services[name] = service(name, Port("grpc", 90, is_grpc=True))
    mesh.touch_service(name)
    assert mesh.changed() == {PortName(name, 80), PortName(name, 90)}
    assert mesh.ports == {PortName(name, 90)}
    del mesh.services[name]
    mesh.touch_service(name)
    assert mesh.changed() == {PortName(name, 90)}
    assert mesh.entries == {}


@pytest.mark.parametrize(
    ("parent", "hints"),
    [
        ({"group": "gateway.networking.k8s.io", "kind": "Gateway"}, 0),
        ({"group": None, "kind": None}, 0),
        ({"group": "multicluster.x-k8s.io", "kind": "ServiceImport"}, 0),
        ({"group": None}, 1),
        ({"group": "core"}, 1),
        ({"group": "gateway.networking.k8s.io"}, 1),
    ],
)
def test_parents_that_are_not_ours_are_left_to_others(parent, hints):
    mesh = Mesh(route(rule(), parents=[{"name": "web", **parent}]))
    assert mesh.entries == {}
    assert mesh.stated().entries == ()
    assert len(mesh.reasons()) == hints


def test_a_status_has_one_entry_for_each_parent_of_ours_with_the_fields_that_are_set():
    parents = [
        {"name": "api", "sectionName": "grpc"},
        {"name": "gw", "group": "gateway.networking.k8s.io", "kind": "Gateway"},
        {"name": "api", "sectionName": "gone", "port": 80},
        {"name": "web", "namespace": "shop"},
    ]
    mesh = Mesh(route(rule(), parents=parents, generation=7))
    status = mesh.stated()
    assert status.generation == 7
    ours = {"group": "", "kind": "Service"}
    assert [entry.ref for entry in status.entries] == [
        {**ours, "name": "api", "sectionName": "grpc"},
        {**ours, "name": "api", "sectionName": "gone", "port": 80},
        {**ours, "name": "web", "namespace": "shop"},
    ]
    assert [mesh.conditions(parent=index)["Accepted"] for index in range(3)] == [
        "True Accepted",
        "False NoMatchingParent",
        "True Accepted",
    ]
    assert mesh.ports == {PORT, PortName(API, 80)}


def test_two_parents_that_mean_one_port_make_its_rules_once():
    mesh = Mesh(route(rule(), parents=[{"name": "web"}, {"name": "web", "port": 80}]))
    assert len(mesh.rules()) == 1
    assert len(mesh.stated().entries) == 2


def test_producers_and_consumers_are_merged_separately():
    parents = [{"name": "web", "namespace": "shop"}]
    mesh = Mesh(
        route(rule(method("a", "P")), name="p", parents=parents),
        route(rule(method("a", "Q")), name="q", parents=parents),
        route(rule(method("a", "C")), name="c", namespace="clients", parents=parents),
        route(rule(method("a", "D")), name="d", namespace="clients", parents=parents),
        route(rule(filters=[{"type": "RequestMirror"}]), name="x", namespace="other", parents=parents),
    )
    assert set(mesh.entries) == {RouteScope(PORT), RouteScope(PORT, "clients")}
    assert [each.match.path.value for each in mesh.rules()] == ["/a/P", "/a/Q"]
    assert [each.match.path.value for each in mesh.rules(namespace="clients")] == ["/a/C", "/a/D"]
    mesh.put(("shop", "p"), None)
    mesh.put(("shop", "q"), None)
    assert mesh.changed() == {PORT}
    assert set(mesh.entries) == {RouteScope(PORT, "clients")}
    mesh.put(("clients", "c"), None)
    mesh.put(("clients", "d"), None)
    assert mesh.changed() == {PORT}
    assert mesh.entries == {}


def test_host_names_say_nothing():
    assert Mesh(route(rule(), hostnames=["example.com"])).entries == Mesh(route(rule())).entries


# --- Matches -------------------------------------------------------------------------------------------------------

REGEX = "RegularExpression"


@pytest.mark.parametrize(
    ("match", "path"),
    [
        ({}, EVERY_PATH),
        (method("a.v1.B", "C"), Path(PathType.EXACT, "/a.v1.B/C")),
        (method("a.v1.B", "C", "Exact"), Path(PathType.EXACT, "/a.v1.B/C")),
        (method("a.v1.B"), Path(PathType.PREFIX, "/a.v1.B/")),
        (method("a.v1.B", ""), Path(PathType.PREFIX, "/a.v1.B/")),
        (method(None, "C"), Path(PathType.REGEX, "/[^/]+/C")),
        (method("a|b", "C.*", REGEX), Path(PathType.REGEX, "/(?:a|b)/(?:C.*)")),
        (
            method(r"\{\x{41}a{2}b{1,}c{1,2}", None, REGEX),
            Path(PathType.REGEX, r"/(?:\{\x{41}a{2}b{1,}c{1,2})/[^/]+"),
        ),
        (method("a|b", None, REGEX), Path(PathType.REGEX, "/(?:a|b)/[^/]+")),
        (method("", "Get|Put", REGEX), Path(PathType.REGEX, "/[^/]+/(?:Get|Put)")),
    ],
)
def test_paths(match, path):
    assert matches(match) == [Match(path)]


def test_a_rule_without_matches_matches_everything():
    assert matches() == [Match()]
    assert [each.match for each in Mesh(route({"backendRefs": [{"name": "web", "port": 80}]})).rules()] == [
        Match()
    ]


def test_headers():
    found = [*header("X-Env", "canary")["headers"], *header("x-user", "a|b", REGEX)["headers"]]
    assert matches({"headers": found}) == [
        Match(headers=(Header("x-env", "canary"), Header("x-user", "(?:a|b)", is_regex=True)))
    ]


def test_of_equivalent_headers_the_first_counts():
    found = [*header("X-Env", "a")["headers"], *header("x-ENV", "greet(", REGEX)["headers"]]
    assert matches({"headers": found}) == [Match(headers=(Header("x-env", "a"),))]


@pytest.mark.parametrize(
    ("match", "text"),
    [
        (method(), "neither service nor method"),
        (method("", ""), "neither service nor method"),
        (method("a/b", "C"), "method.service"),
        (method("a", "C.d"), "method.method"),
        (method("a" * 1025), "method.service"),
        (method("a", "é"), "method.method"),
        (method("a\n", "C"), "method.service"),
        (method("a", "C", "Prefix"), "method.type"),
        (method("greet(", "C", REGEX), "RE2"),
        (method("a", "[z-a]", REGEX), "RE2"),
        (method("(?<=a)b", "C", REGEX), "method.service"),
        (method("(?<n>a)", "C", REGEX), "(?<"),
        (method("a)|(?:b", "C", REGEX), "method.service"),
        (method("\\Qa", "C", REGEX), "RE2"),
        (method("\\pL", "C", REGEX), "\\p"),
        (method("\\C", None, REGEX), "\\C"),
        (method("a{+", None, REGEX), "write "),
        (method("a{,3}", None, REGEX), "write "),
        (method("é", None, REGEX), "ASCII"),
        (method("\ud800", None, REGEX), "ASCII"),
        (method(".{1000}" * 9, None, REGEX), "RE2"),
        (method("a" * 5001, None, REGEX), "at most 5000"),
        (header("trace-bin", "a"), "trace-bin"),
        (header("User-Agent", "a"), "User-Agent".lower()),
        (header(":authority", "a"), ":authority"),
        (header(":path", "a"), ":path"),
        (header("host", "a"), "host"),
        (header("te", "a"), "te"),
        (header("grpc-timeout", "1S"), "grpc-timeout"),
        (header("", "a"), "name"),
        (header("a b", "a"), "name"),
        (header("a" * 257, "a"), "name"),
        (header("a", ""), "value"),
        (header("a", "b" * 4097), "value"),
        (header("a", "é"), "value"),
        (header("a", "b\n"), "value"),
        (header("a", "greet(", REGEX), "RE2"),
        (header("a", "b", "Prefix"), "type"),
        ({"headers": [{"name": f"h{n}", "value": "a"} for n in range(17)]}, "17 headers"),
    ],
)
def test_matches_that_clients_would_refuse_or_ignore(match, text):
    message = dropped(matches=[method("a", "C"), match])
    assert "matches[1]." in message
    assert text in message
    assert message.isascii()


def test_large_expressions():
    found = matches(header("a", "x" * 900, REGEX), method("x" * 400, "y" * 400, REGEX))
    assert len(found) == 2
    assert "at most 1000" in dropped(matches=[header("a", "x" * 1001, REGEX)])
    assert "at most 1000" in dropped(matches=[method("x" * 600, "y" * 600, REGEX)])


@pytest.mark.parametrize("count", [64, 65])
def test_matches_of_one_rule(count):
    found = [method("a", f"M{n}") for n in range(count)]
    if count == 64:
        assert len(matches(*found)) == count
    else:
        assert "65 matches" in dropped(matches=found)


# --- Precedence ----------------------------------------------------------------------------------------------------


def order(*routes):
    """The backends' ports in the order in which rules are tried, as each rule has one of its own."""
    mesh = Mesh(*routes)
    return [each.backends[0].weight for each in mesh.rules()]


def to(weight):
    return [{"name": "web", "port": 80, "weight": weight}]


def test_the_more_specific_match_is_tried_first():
    headers = {"headers": [*header("a", "1")["headers"], *header("b", "2")["headers"]]}
    assert order(
        route(
            rule(to=to(8)),
            rule(header("a", "1"), to=to(7)),
            rule(headers, to=to(6)),
            rule(method(None, "Method"), to=to(5)),
            rule(method("aa"), to=to(4)),
            rule(method("aa", "M"), to=to(3)),
            rule({**method("aa", "M"), **headers}, to=to(2)),
            rule(method("aaa"), to=to(1)),
        )
    ) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_each_match_of_a_rule_is_ranked_by_itself():
    found = order(route(rule(method("aaa"), {}, to=to(1)), rule(method("aa"), to=to(2))))
    assert found == [1, 2, 1]


def test_characters_count_whatever_the_type():
    found = order(route(rule(method("aa", "M"), to=to(2)), rule(method("a{1,2}", "M", REGEX), to=to(1))))
    assert found == [1, 2]


def test_of_equals_the_older_route_then_its_name_then_the_place_in_the_spec():
    old, new = "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"
    assert order(
        route(rule(to=to(5)), name="a", created=new),
        route(rule(to=to(3)), rule(to=to(4)), name="c", created=old),
        route(rule(to=to(1)), rule({}, {}, to=to(2)), name="b", created=old),
    ) == [1, 2, 2, 3, 4, 5]


def test_a_route_that_becomes_older_changes_the_order():
    mesh = Mesh(
        route(rule(to=to(1)), name="a", created="2026-01-01T00:00:00Z"),
        route(rule(to=to(2)), name="b", created="2026-01-02T00:00:00Z"),
    )
    mesh.put(("shop", "b"), route(rule(to=to(2)), name="b", created="2025-01-02T00:00:00Z"))
    assert mesh.changed() == {PORT}
    assert [each.backends[0].weight for each in mesh.rules()] == [2, 1]


# --- Backends ------------------------------------------------------------------------------------------------------


def backends(*references):
    """The backends of a rule with these references, and the condition ResolvedRefs."""
    mesh = Mesh(route(rule(to=references)))
    [found] = mesh.rules()
    assert mesh.conditions()["Accepted"] == "True Accepted"
    return found.backends, mesh.conditions()["ResolvedRefs"]


def test_weights():
    found, resolved = backends(
        {"name": "web", "port": 80, "weight": 90},
        {"name": "web-v2", "port": 80},
        {"name": "api", "port": 81, "weight": 0},
    )
    assert found == (Backend(PORT, 90), Backend(PortName(V2, 80), 1))
    assert resolved == "True ResolvedRefs"


def test_a_backend_of_another_namespace_needs_no_grant():
    reference = {"name": "web", "namespace": "shop", "port": 80, "group": "", "kind": "Service"}
    mesh = Mesh(
        route(rule(to=[reference]), namespace="clients", parents=[{"name": "web", "namespace": "shop"}])
    )
    [found] = mesh.rules(namespace="clients")
    assert found.backends == TO_WEB
    assert mesh.conditions(namespace="clients") == GOOD


def test_one_target_twice_has_the_sum_of_its_weights():
    gone = {"name": "gone", "port": 1}
    web = {"name": "web", "port": 80}
    found, _ = backends({**web, "weight": 3}, gone, web, {**gone, "weight": 4})
    assert found == (Backend(PORT, 4), Backend(unavailable("BackendNotFound: Service shop/gone"), 5))


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ({"name": "gone", "port": 80}, "BackendNotFound: Service shop/gone"),
        ({"name": "web", "port": 81}, "BackendNotFound: Service shop/web port 81"),
        ({"name": "web"}, "BackendNotFound: Service shop/web, the port is not set"),
        ({"name": "web", "namespace": "x", "port": 80}, "BackendNotFound: Service x/web"),
        ({"name": "b", "kind": "Bucket", "group": "example.com"}, "InvalidKind: Bucket.example.com shop/b"),
        ({"name": "b", "kind": "Pod"}, "InvalidKind: Pod shop/b"),
        ({"name": "a\n\x7fé", "port": 80}, "BackendNotFound: Service shop/a???"),
    ],
)
def test_a_backend_that_does_not_exist_fails_its_share(reference, reason):
    found, resolved = backends({"name": "web", "port": 80, "weight": 3}, reference)
    assert found == (Backend(PORT, 3), Backend(unavailable(reason), 1))
    assert resolved == f"False {reason.partition(':')[0]}"
    mesh = Mesh(route(rule(to=[reference])))
    assert mesh.message("ResolvedRefs") == f"rules[0].backendRefs[0]: {reason}"
    assert mesh.reasons() == [f"rules[0].backendRefs[0]: {reason}"]


def test_a_missing_backend_of_weight_zero_is_told_and_not_sent():
    found, resolved = backends({"name": "web", "port": 80}, {"name": "gone", "port": 80, "weight": 0})
    assert found == TO_WEB
    assert resolved == "False BackendNotFound"


def test_a_backend_that_appears_later():
    mesh = Mesh(route(rule(to=[{"name": "new", "port": 80}])))
    name = ServiceName("shop", "new")
    mesh.services[name] = service(name)
    mesh.touch_service(name)
    assert mesh.changed() == {PORT}
    assert mesh.rules()[0].backends == (Backend(PortName(name, 80)),)
    assert mesh.conditions() == GOOD


@pytest.mark.parametrize("references", [[], [{"name": "web", "port": 80, "weight": 0}]])
def test_a_rule_without_weight_fails_all_its_requests(references):
    found, resolved = backends(*references)
    reason = "NoBackend: rules[0] of GRPCRoute shop/canary has no backend with a weight"
    assert found == (Backend(unavailable(reason)),)
    assert resolved == "True ResolvedRefs"
    assert Mesh(route(rule(to=references))).reasons() == [reason]


def test_a_reason_is_a_name_of_bounded_length():
    found, _ = backends({"name": "x" * 9000, "port": 80})
    assert len(str(found[0].target)) == 400
    assert parse_unavailable(str(found[0].target)) == found[0].target


# --- Dropped rules and routes --------------------------------------------------------------------------------------

WEB_80 = {"name": "web", "port": 80}


@pytest.mark.parametrize(
    "kind", ["RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror", "ExtensionRef", "New"]
)
def test_filters_drop_their_rule(kind):
    assert f'filters[0]: gRPC clients have no filters such as "{kind}"' in dropped(filters=[{"type": kind}])
    message = dropped(backendRefs=[WEB_80, {**WEB_80, "filters": [{"type": kind}]}])
    assert "backendRefs[1].filters[0]" in message


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"sessionPersistence": {}}, "sessionPersistence"),
        ({"backendRefs": [{**WEB_80, "weight": -1}]}, "backendRefs[0].weight: -1"),
        ({"backendRefs": [{**WEB_80, "weight": 1_000_001}]}, "backendRefs[0].weight: 1000001"),
        ({"backendRefs": [{**WEB_80, "port": 0}]}, "backendRefs[0].port: 0"),
        ({"backendRefs": [{**WEB_80, "port": 65_536}]}, "backendRefs[0].port: 65536"),
        ({"backendRefs": [WEB_80] * 17}, "17 backends"),
        ({"name": "mirrored", "filters": [{"type": "RequestMirror"}]}, "rules[0] (mirrored): filters[0]"),
    ],
)
def test_fields_that_drop_their_rule(fields, text):
    assert text in dropped(**fields)


def test_no_rule_left():
    bad = rule(header("a-bin", "b")) | {"name": "first"}
    mesh = Mesh(route(bad, rule(filters=[{"type": "RequestMirror"}])))
    assert mesh.entries == {}
    assert mesh.conditions() == {"Accepted": "False UnsupportedValue", "ResolvedRefs": "True ResolvedRefs"}
    assert mesh.message("Accepted").startswith("Dropped Rule rules[0] (first): matches[0].headers[0].name")
    only_filters = Mesh(route(rule(filters=[{"type": "RequestMirror"}])))
    assert only_filters.conditions()["Accepted"] == "False IncompatibleFilters"


def test_a_route_that_is_refused_leaves_the_others():
    bad = route(rule(filters=[{"type": "RequestMirror"}]), name="bad")
    assert Mesh(bad, route(rule())).entries == Mesh(route(rule())).entries


@pytest.mark.parametrize("rules", [{"rules": []}, {"rules": None}])
def test_a_route_without_rules_is_not_accepted(rules):
    mesh = Mesh(route(**rules))
    assert mesh.entries == {}
    assert mesh.conditions()["Accepted"] == "False UnsupportedValue"


def test_a_route_without_parents():
    mesh = Mesh(route(rule(), parentRefs=None))
    assert mesh.entries == {}
    assert mesh.stated().entries == ()


def test_partially_invalid_is_said_only_where_the_route_is_accepted():
    bad = rule(filters=[{"type": "RequestMirror"}])
    mesh = Mesh(route(rule(), bad, parents=[{"name": "web"}, {"name": "gone"}]))
    assert "PartiallyInvalid" in mesh.conditions(parent=0)
    assert mesh.conditions(parent=1) == {
        "Accepted": "False NoMatchingParent",
        "ResolvedRefs": "True ResolvedRefs",
    }


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"rules": [rule()] * 17}, "spec.rules: 17"),
        ({"rules": [rule(*[{}] * 43)] * 3}, "129 matches"),
        ({"rules": [rule()], "parentRefs": [{"group": "", "kind": "Service", "name": "web"}] * 33}, "33"),
    ],
)
def test_a_route_beyond_the_limits_is_not_accepted(spec, text):
    mesh = Mesh(route(**spec))
    assert mesh.entries == {}
    assert mesh.conditions()["Accepted"] == "False UnsupportedValue"
    assert text in mesh.message("Accepted")
    assert set(mesh.conditions()) == {"Accepted"}, "nothing is said about backends that were not looked for"
    assert len(mesh.stated().entries) <= 32


def test_the_largest_route():
    rules = [rule(*[method("a", f"M{m}") for m in range(8)]) for _ in range(16)]
    mesh = Mesh(route(*rules, parents=[{"name": "web"}] * 32))
    assert len(mesh.rules()) == 128
    assert mesh.conditions() == GOOD


def test_messages_are_bounded():
    mesh = Mesh(route(rule(), *[rule(header("a", "(" * 4096, REGEX)) for _ in range(15)], name="n"))
    assert len(mesh.message("PartiallyInvalid", "n")) <= 4096


# --- What all routes of a port may cost ---------------------------------------------------------------------------


def sized(name, instructions, *, created="", namespace="shop", service="web", **fields):
    """A route whose expressions take that many instructions of the budget of its port, in steps of 400."""
    step = [header("h", "x" * (400 - 50 - 4), REGEX)]
    found = rule(
        *step * (instructions // 400), {}, name=name, to=[{"name": "web", "namespace": "shop", "port": 80}]
    )
    parents = [{"name": service, "namespace": "shop", **fields}]
    return route(found, name=name, namespace=namespace, created=created, parents=parents)


def served(mesh, port=PORT, namespace=None):
    """How many rules are served."""
    return len(mesh.rules(port, namespace) or ())


def test_a_route_beyond_the_budget_of_its_port_is_not_accepted_and_the_others_are_served():
    mesh = Mesh(
        sized("old", 2400, created="2026-01-01T00:00:00Z"),
        sized("large", 2000, created="2026-01-02T00:00:00Z"),
        sized("small", 1600, created="2026-01-03T00:00:00Z"),
    )
    assert served(mesh) == 7 + 5
    assert mesh.conditions("old")["Accepted"] == mesh.conditions("small")["Accepted"] == "True Accepted"
    assert mesh.conditions("large") == {
        "Accepted": "False PortBudgetExceeded",
        "ResolvedRefs": "True ResolvedRefs",
    }
    expected = (
        "its regular expressions take 2000 instructions of RE2, and older routes leave less of the 4000 that one port "
        "may have; use shorter expressions, or exact names and values"
    )
    assert mesh.message("Accepted", "large") == expected
    assert mesh.reasons() == [f"it is not accepted by Service shop/web: {expected}"]


def test_room_in_the_budget_goes_to_the_oldest_route_that_fits():
    mesh = Mesh(sized("a", 3200), sized("b", 1200), sized("c", 400), sized("d", 800))
    assert [mesh.conditions(name)["Accepted"].split()[0] for name in "abcd"] == [
        "True",
        "False",
        "True",
        "False",
    ]
    mesh.take_restated()
    mesh.put(("shop", "a"), sized("a", 2000))
    assert mesh.changed() == {PORT}
    assert [mesh.conditions(name)["Accepted"].split()[0] for name in "abcd"] == [
        "True",
        "True",
        "True",
        "False",
    ]
    assert mesh.take_restated() == {("shop", "a"), ("shop", "b")}
    mesh.put(("shop", "a"), None)
    mesh.changed()
    assert [mesh.conditions(name) for name in "bcd"] == [GOOD] * 3
    assert mesh.reasons() == []
    mesh.put(("shop", "0"), sized("0", 4000))
    assert mesh.changed() == {PORT}
    assert served(mesh) == 11
    assert [mesh.conditions(name)["Accepted"] for name in "bcd"] == ["False PortBudgetExceeded"] * 3


def test_consumers_and_producers_have_a_budget_each():
    mesh = Mesh(sized("a", 4000), sized("b", 4000, namespace="clients"), sized("c", 400, namespace="clients"))
    assert (served(mesh), served(mesh, namespace="clients")) == (11, 11)
    assert mesh.conditions("a") == mesh.conditions("b", "clients") == GOOD
    assert mesh.conditions("c", "clients")["Accepted"] == "False PortBudgetExceeded"


def test_a_parent_accepts_a_route_if_one_of_its_ports_has_room():
    mesh = Mesh(sized("a", 4000, service="api", port=81), sized("b", 400, service="api"))
    assert (served(mesh, PortName(API, 80)), served(mesh, PortName(API, 81))) == (2, 11)
    assert mesh.conditions("b") == {**GOOD, "PartiallyInvalid": "True UnsupportedValue"}
    assert mesh.message("PartiallyInvalid", "b").startswith("Dropped Rule all rules on port 81: its regular")
    [reason] = mesh.reasons()
    assert reason.startswith("no rule is served on api.shop:81: its regular")


def test_a_route_that_is_too_large_by_itself():
    """As many expressions as the definition allows, which end a Node process."""
    expressions = {"headers": [{"name": f"h{n}", "value": f"v{n}", "type": REGEX} for n in range(16)]}
    mesh = Mesh(route(*[rule(*[expressions] * 8)] * 16))
    assert mesh.entries == {}
    assert mesh.conditions()["Accepted"] == "False PortBudgetExceeded"


def test_the_bytes_of_a_port_have_a_budget():
    backends = [{"name": f"{n:02}" + "x" * 60, "namespace": "y" * 63, "port": 80} for n in range(16)]
    rules = [rule(*[{}] * 8, to=backends)] * 16
    names = [f"r{n}" for n in range(8)]
    mesh = Mesh(*(route(*rules, name=name) for name in names))
    refused = [name for name in names if mesh.conditions(name)["Accepted"] == "False PortBudgetExceeded"]
    assert refused == names[len(names) - len(refused) :]
    assert 0 < len(refused) < len(names)
    assert "leave less of the 1048576 that one port may have; use fewer" in mesh.message(
        "Accepted", names[-1]
    )


def test_a_change_in_one_namespace_touches_one_scope():
    def consumer(number, weight=1):
        to_web = [{"name": "web", "namespace": "shop", "port": 80, "weight": weight}]
        parents = [{"name": "web", "namespace": "shop"}]
        return route(rule(to=to_web), namespace=f"n{number}", parents=parents)

    mesh = Mesh(route(rule()), *(consumer(number) for number in range(10)))
    assert len(mesh.entries) == 11
    mesh.put(("n3", "canary"), consumer(3, weight=2))
    assert mesh.changed_scopes() == {RouteScope(PORT, "n3")}
    mesh.put(("shop", "canary"), None)
    assert mesh.changed_scopes() == {RouteScope(PORT)}
    mesh.put(("n3", "canary"), None)
    assert mesh.flush() == {Entry(ROUTES, RouteScope(PORT, "n3")): None}


# --- Policies ------------------------------------------------------------------------------------------------------


def test_policies_of_the_route_and_of_a_rule():
    canary = ("shop", "canary")
    policies = {(canary, ""): CallPolicy(timeout=5.0), (canary, "slow"): CallPolicy(timeout=60.0)}
    mesh = Mesh(route(rule(), rule(method("a"), name="slow")), policies=policies)
    assert [each.policy.timeout for each in mesh.rules()] == [60.0, 5.0]
    policies[canary, "slow"] = CallPolicy()
    mesh.touch_route(canary)
    assert mesh.changed() == {PORT}
    assert [each.policy for each in mesh.rules()] == [CallPolicy(), CallPolicy(timeout=5.0)]


def test_rules_of_one_name_are_served_and_share_its_policy():
    policies = {(("shop", "canary"), "n"): CallPolicy(timeout=5.0)}
    mesh = Mesh(route(rule(name="n"), rule(method("a"), name="n")), policies=policies)
    assert [each.policy.timeout for each in mesh.rules()] == [5.0, 5.0]
    assert mesh.conditions() == GOOD
    assert mesh.reasons() == [
        "rules[1] (n): the name is taken; a policy for it is used for all rules of that name"
    ]


def test_where_policies_have_no_effect():
    bad = rule(filters=[{"type": "RequestMirror"}])
    mesh = Mesh(
        route(rule(name="good"), {**bad, "name": "bad"}, {**bad, "name": "good"}),
        route(bad, name="refused"),
        route(rule(), name="gateway", parents=[{"name": "web", "kind": "Gateway"}]),
        route(rule(), name="half", parents=[{"name": "gone"}, {"name": "web"}]),
    )
    dropped_filter = 'filters[0]: gRPC clients have no filters such as "RequestMirror"'
    assert {
        (name, named): mesh.idle(("shop", name), named)
        for name, named in (
            *(("canary", named) for named in ("", "good", "bad")),
            *((name, "") for name in ("refused", "gateway", "half", "unknown")),
        )
    } == {
        ("canary", ""): "",
        ("canary", "good"): "",
        ("canary", "bad"): f"rule bad of GRPCRoute canary is dropped: {dropped_filter}",
        ("refused", ""): "GRPCRoute refused is not accepted (IncompatibleFilters)",
        ("gateway", ""): "no parent of GRPCRoute gateway is a Service",
        ("half", ""): "",
        ("unknown", ""): "GRPCRoute unknown is not served",
    }


# --- Changes -------------------------------------------------------------------------------------------------------


def test_only_what_really_changed_is_published():
    mesh = Mesh(route(rule()), route(rule(), name="other", parents=[{"name": "api"}]))
    mesh.put(("shop", "canary"), route(rule(), generation=2))
    mesh.touch_service(WEB)
    mesh.touch_service(ServiceName("no", "where"))
    mesh.touch_route(("no", "where"))
    assert mesh.changed() == set()
    assert mesh.stated().generation == 2
    mesh.put(("shop", "canary"), None)
    assert mesh.changed() == {PORT}
    assert mesh.status(("shop", "canary")) is None
    assert list(mesh.objects) == [("shop", "other")]
    mesh.put(("shop", "canary"), None)
    assert mesh.changed() == set()


def test_the_routes_that_are_made_again():
    mesh = Mesh(route(rule()), route(rule(), name="other", parents=[{"name": "api"}]))
    assert mesh.take_restated() == {("shop", "canary"), ("shop", "other")}
    assert mesh.take_restated() == set()
    mesh.touch_service(API)
    mesh.put(("shop", "gone"), None)
    mesh.changed()
    assert mesh.take_restated() == {("shop", "other"), ("shop", "gone")}
    mesh.touch_service(WEB)
    mesh.changed()
    assert mesh.take_restated() == {("shop", "canary"), ("shop", "other")}


def test_a_change_reads_no_other_route():
    read = []

    def policy_of(item, _):
        read.append(item)
        return CallPolicy()

    routes = RouteAssembler(services(), policy_of)
    for item in [route(rule(), name=f"r{n}", parents=[{"name": "api"}]) for n in range(20)]:
        routes.put(key(item), item)
    routes.flush()
    read.clear()
    routes.put(("shop", "canary"), route(rule(to=to(2))))
    assert set(routes.flush()) == {Entry(ROUTES, RouteScope(PORT))}
    assert read == [("shop", "canary")]


def test_a_defect_harms_one_route():
    def policy_of(item, _):
        if item == broken:
            raise ZeroDivisionError
        return CallPolicy()

    broken = None
    known = services()
    mesh = RouteAssembler(known, policy_of)
    mesh.put(("shop", "canary"), route(rule(to=to(1))))
    before = mesh.flush()[Entry(ROUTES, RouteScope(PORT))]
    broken = ("shop", "canary")
    mesh.put(broken, route(rule(to=to(2))))
    mesh.put(("shop", "new"), route(rule(), name="new", parents=[{"name": "api", "port": 80}]))
    with capture_logs() as logs:
        assert set(mesh.flush()) == {Entry(ROUTES, RouteScope(PortName(API, 80)))}
    assert [line["event"] for line in logs] == ["route can't be assembled; it stays as it was"]
    [problem] = mesh.problems()
    assert problem.key == broken
    assert "stays as it was: ZeroDivisionError()" in problem.reason
    broken = None
    mesh.touch_route(("shop", "canary"))
    assert mesh.flush()[Entry(ROUTES, RouteScope(PORT))] != before
    assert list(mesh.problems()) == []


def test_the_problems_of_one_route():
    mesh = Mesh(route(rule(), rule(to=[{"name": "gone", "port": 1}])))
    [problem] = mesh.problems_of(("shop", "canary"))
    assert problem.kind == "GRPCRoute"
    assert "gone" in problem.reason
    assert mesh.problems_of(("shop", "other")) == ()


def random_route(chance, name, namespace):
    parents = [
        {
            "name": chance.choice(["web", "api", "new"]),
            "namespace": "shop",
            **chance.choice([{}, {"port": 81}]),
        }
        for _ in range(chance.randrange(3))
    ]
    rules = [
        rule(
            *chance.sample(
                [method("a"), method("a", "B"), method("(", None, REGEX), header("h", "v")],
                chance.randrange(3),
            ),
            to=[
                {"name": chance.choice(["web", "new", "gone"]), "port": 80, "weight": chance.randrange(3)}
                for _ in range(chance.randrange(3))
            ],
        )
        for _ in range(chance.randrange(3))
    ]
    return route(*rules, name=name, namespace=namespace, parents=parents, created=chance.choice("abc"))


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 1 << 32), steps=st.lists(st.sampled_from("PPPDSTF"), max_size=30))
def test_changes_lead_where_a_fresh_start_would(seed, steps):
    chance = random.Random(seed)  # noqa: S311 - no secret
    mesh = Mesh()
    names = [(namespace, name) for namespace in ("shop", "clients") for name in ("a", "b", "c")]
    for step in steps:
        namespace, name = place = chance.choice(names)
        match step:
            case "P":
                mesh.put(place, random_route(chance, name, namespace))
            case "D":
                mesh.put(place, None)
            case "S":
                changed = ServiceName("shop", chance.choice(["web", "api", "new"]))
                if mesh.services.pop(changed, None) is None:
                    mesh.services[changed] = service(
                        changed, Port("x", chance.choice([80, 81]), is_grpc=True)
                    )
                mesh.touch_service(changed)
            case "T":
                mesh.policies[place, ""] = CallPolicy(timeout=chance.random())
                mesh.touch_route(place)
            case "F":
                mesh.changed()
    mesh.changed()
    fresh = RouteAssembler(mesh.services, lambda route, name: mesh.policies.get((route, name), CallPolicy()))
    for place, item in mesh.objects.items():
        fresh.put(place, item)
    found: dict[Any, dict[Any, Any]] = {ROUTES: {}, CONSUMED: {}}
    for entry, value in fresh.flush().items():
        found[entry.table][entry.key] = value
    assert found == {ROUTES: mesh.entries, CONSUMED: mesh.consumed}
    assert {place: fresh.status(place) for place in names} == {place: mesh.status(place) for place in names}
    assert set(fresh.problems()) == set(mesh.problems())


def test_expressions_are_what_re2_takes_and_mean_what_is_written():
    [found] = matches(method("a|b", "Get|Put", REGEX))
    assert re2.fullmatch(found.path.value, "/b/Get")
    assert not re2.fullmatch(found.path.value, "/bb/Get")
    [found] = matches(header("h", "v1|v2", REGEX))
    # Node's client searches, with ^ and $ around the expression.
    assert not re2.search(f"^{found.headers[0].value}$", "v1x")


def test_conditions_are_in_a_fixed_order():
    mesh = Mesh(route(rule(), rule(filters=[{"type": "RequestMirror"}])))
    found = mesh.stated().entries[0].conditions
    assert [each.type for each in found] == ["Accepted", "ResolvedRefs", "PartiallyInvalid"]
    assert all(isinstance(each, Condition) and each.status for each in found)
