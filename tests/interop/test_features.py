"""What each traffic feature does in each language, counted at the servers. The first line of a docstring is the row's title."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import pytest

from tests.interop.backend import Backend
from tests.interop.client import Program, Replies, call_until
from tests.interop.conftest import Note, StartProgram
from tests.interop.languages import LANGUAGES, RUST
from tests.interop.mesh import SERVICE, TARGET, Greeter, Mesh
from tests.interop.traffic import (
    Traffic,
    counts_by_header,
    endpoint,
    everything,
    is_share,
    service,
)
from tests.support import objects
from tests.support.traffic import of_route, policy, route
from tests.support.waiting import wait_until

BACKENDS = 4
OTHER = "/greeter.v1.Greeter/Other"
HEALTH = "/grpc.health.v1.Health/Check"
AT_ONCE = 2_000.0
"""Milliseconds: far more than a failure at once takes, and less than any timeout here."""
USERS = [f"user-{number}" for number in range(200)]

NO_FILTERS = "tonic-xds reads no HTTP filters; calls are made as ever"
NO_CLUSTER_FIELDS = "tonic-xds reads no such field of a cluster"
NO_RING_HASH = "tonic-xds refuses a cluster whose balancing policy is ring hash (`lb_policy`)"
NO_REPORTS = "tonic-xds sends no load reports"
NO_PRIORITIES = "tonic-xds reads no priorities; calls go to all endpoints alike"

pytestmark = pytest.mark.parametrize("start", [each.name for each in (*LANGUAGES, RUST)], indirect=True)


@pytest.fixture
def greeters() -> list[Greeter]:
    """None: the backends of these scenarios are told what to do."""
    return []


@pytest.fixture
def traffic(mesh: Mesh) -> Iterator[Traffic]:
    """The mesh with backends of its own, which a scenario tells what to do."""
    with ExitStack() as stack:
        yield Traffic(
            mesh,
            [stack.enter_context(Backend(f"backend-{number}")) for number in range(1, BACKENDS + 1)],
        )


def opened(start: StartProgram, **node: str) -> Program:
    """Starts a client and opens its channel."""
    client = start(**node)
    client.open("a", TARGET)
    return client


def call(client: Program, times: int = 1, **options: Any) -> Replies:
    """Makes calls that fail at once if there is no connection."""
    return client.call("a", times, **{"patient": False, **options})


def only(replies: Replies) -> dict[str, Any]:
    """Returns the failure of the only call."""
    assert replies.hosts == []
    [failure] = replies.failures
    return failure


# Load reports


@pytest.mark.smoke
def test_load_reports(
    traffic: Traffic, start: StartProgram, note: Note, request: pytest.FixtureRequest
) -> None:
    """Load reports: requests and failures by Service, as sums in `/metrics`"""
    if request.node.callspec.params["start"] == RUST.name:
        pytest.skip(f"n/a: {NO_REPORTS}")
    good, bad, *_ = traffic.backends
    traffic.apply(
        service(SERVICE, [good]),
        service("bad", [bad]),
        route("""
        - matches: [{headers: [{name: x-bad, value: "yes"}]}]
          backendRefs: [{name: bad, port: 50051}]
        - backendRefs: [{name: hello-server, port: 50051}]
        """),
    )
    bad.fail(grpc.StatusCode.UNAVAILABLE)
    client = opened(start)
    assert call(client, 30).failures == []
    assert len(call(client, 10, metadata={"x-bad": "yes"}).failures) == 10

    def reported() -> dict[str, float]:
        return {
            f"{name} {result}": traffic.mesh.labelled(
                "xds_load_requests_total", service=f"{name}.default:50051", result=result
            )
            for name in (SERVICE, "bad")
            for result in ("succeeded", "failed")
        }

    expected = {f"{SERVICE} succeeded": 30, f"{SERVICE} failed": 0, "bad succeeded": 0, "bad failed": 10}
    wait_until("the reports", lambda: reported() == expected)
    note("30 and 10 of 30 and 10")


# Routes


@pytest.mark.parametrize(("first", "second"), [(90, 10), (50, 50)])
def test_weights(traffic: Traffic, start: StartProgram, note: Note, first: int, second: int) -> None:
    """GRPCRoute `backendRefs.weight`: 90:10 and 50:50 beside 0, within the binomial 99.9 % interval"""
    one, two, three, _ = traffic.backends
    traffic.apply(
        service(SERVICE),
        service("one", [one]),
        service("two", [two]),
        service("three", [three]),
        route(f"""
        - backendRefs:
          - {{name: one, port: 50051, weight: {first}}}
          - {{name: two, port: 50051, weight: {second}}}
          - {{name: three, port: 50051, weight: 0}}
        """),
    )
    replies = call(opened(start), 1_000, concurrency=8)
    assert replies.failures == []
    counts = traffic.counts()
    assert sum(counts) == 1_000
    assert counts[2] == 0
    assert is_share(counts[1], 1_000, second / 100), counts
    note(f"{counts[0]}:{counts[1]}")


@pytest.mark.smoke
def test_headers(traffic: Traffic, start: StartProgram) -> None:
    """GRPCRoute `matches.headers`: Exact and RegularExpression, the whole value, all of a match"""
    exact, regex, both, rest = traffic.backends
    traffic.apply(
        service(SERVICE, [rest]),
        service("exact", [exact]),
        service("regex", [regex]),
        service("both", [both]),
        route("""
        - matches: [{headers: [{name: x-user, value: ann}, {name: x-stage, value: test}]}]
          backendRefs: [{name: both, port: 50051}]
        - matches: [{headers: [{name: x-user, value: ann}]}]
          backendRefs: [{name: exact, port: 50051}]
        - matches: [{headers: [{name: x-user, type: RegularExpression, value: "b.b|c+"}]}]
          backendRefs: [{name: regex, port: 50051}]
        - backendRefs: [{name: hello-server, port: 50051}]
        """),
    )
    client = opened(start)
    expected = {
        both: [{"x-user": "ann", "x-stage": "test"}],
        exact: [{"x-user": "ann"}, {"x-user": "ann", "x-stage": "prod"}],
        regex: [{"x-user": "bob"}, {"x-user": "ccc"}],
        rest: [{}, {"x-user": "bobby"}, {"x-user": "Ann"}, {"x-stage": "test"}],
    }
    for backend, headers in expected.items():
        for metadata in headers:
            assert call(client, 2, metadata=metadata) == Replies(2 * [backend.name], []), metadata
    assert traffic.counts() == [2 * len(expected[backend]) for backend in traffic.backends]


def test_methods(traffic: Traffic, start: StartProgram) -> None:
    """GRPCRoute `matches.method`: Exact, a service alone, RegularExpression, a method alone"""
    exact, by_service, regex, by_method = traffic.backends
    traffic.apply(
        service(SERVICE),
        service("exact", [exact]),
        service("by-service", [by_service]),
        service("regex", [regex]),
        service("by-method", [by_method]),
        route("""
        - matches: [{method: {service: greeter.v1.Greeter, method: SayHello}}]
          backendRefs: [{name: exact, port: 50051}]
        - matches: [{method: {service: greeter.v1.Greeter}}]
          backendRefs: [{name: by-service, port: 50051}]
        - matches: [{method: {type: RegularExpression, service: "grpc[.].+", method: "Ch?eck"}}]
          backendRefs: [{name: regex, port: 50051}]
        - matches: [{method: {method: List}}]
          backendRefs: [{name: by-method, port: 50051}]
        """),
    )
    client = opened(start)
    for backend, method in (
        (exact, None),
        (by_service, OTHER),
        (regex, HEALTH),
        (by_method, "/any.Thing/List"),
    ):
        options = {"method": method} if method else {}
        assert call(client, 2, **options) == Replies(2 * [backend.name], []), method
    assert traffic.counts() == [2, 2, 2, 2]


def test_precedence(traffic: Traffic, start: StartProgram) -> None:
    """GRPCRoute: the more specific rule wins, in whatever order they are written"""
    by_service, by_method, by_header, rest = traffic.backends
    traffic.apply(
        service(SERVICE, [rest]),
        service("by-service", [by_service]),
        service("by-method", [by_method]),
        service("by-header", [by_header]),
        route("""
        - backendRefs: [{name: hello-server, port: 50051}]
        - matches: [{method: {service: greeter.v1.Greeter}}]
          backendRefs: [{name: by-service, port: 50051}]
        - matches: [{method: {service: greeter.v1.Greeter, method: SayHello}}]
          backendRefs: [{name: by-method, port: 50051}]
        - matches:
          - method: {service: greeter.v1.Greeter, method: SayHello}
            headers: [{name: x-user, value: ann}]
          backendRefs: [{name: by-header, port: 50051}]
        """),
    )
    client = opened(start)
    assert call(client, 2, method=HEALTH).hosts == 2 * [rest.name]
    assert call(client, 2, method=OTHER, metadata={"x-user": "ann"}).hosts == 2 * [by_service.name]
    assert call(client, 2).hosts == 2 * [by_method.name]
    assert call(client, 2, metadata={"x-user": "ann"}).hosts == 2 * [by_header.name]


@pytest.mark.fails_in("Rust", "'UNKNOWN' == 'UNAVAILABLE'", "tonic-xds fails it at once, but with UNKNOWN")
def test_no_rule_matches(traffic: Traffic, start: StartProgram, note: Note) -> None:
    """GRPCRoute: no rule matches: UNAVAILABLE at once, with this text"""
    traffic.apply(
        service(SERVICE, traffic.backends[:1]),
        route("""
        - matches: [{headers: [{name: x-user, value: ann}]}]
          backendRefs: [{name: hello-server, port: 50051}]
        """),
    )
    client = opened(start)
    assert call(client, metadata={"x-user": "ann"}).failures == []
    failure = only(call(client))
    assert failure["code"] == "UNAVAILABLE"
    assert failure["milliseconds"] < AT_ONCE
    assert traffic.counts() == [1, 0, 0, 0]
    note(failure["details"])


@pytest.mark.not_for("Rust", "tonic-xds waits for an endpoint until the call's own deadline")
def test_missing_backend(traffic: Traffic, start: StartProgram, note: Note) -> None:
    """GRPCRoute: a backend that does not exist: its share (50 %) fails at once with UNAVAILABLE, with this text"""
    traffic.apply(
        service(SERVICE, traffic.backends[:1]),
        route("""
        - backendRefs:
          - {name: hello-server, port: 50051, weight: 1}
          - {name: gone, port: 50051, weight: 1}
        """),
    )
    client = opened(start)
    call(client)
    traffic.counts()
    replies = call(client, 400, concurrency=4)
    assert is_share(len(replies.failures), 400, 0.5), len(replies.failures)
    assert {failure["code"] for failure in replies.failures} == {"UNAVAILABLE"}
    assert max(failure["milliseconds"] for failure in replies.failures) < AT_ONCE
    assert traffic.counts() == [len(replies.hosts), 0, 0, 0]
    note(replies.failures[-1]["details"].partition(". ")[0])


def test_consumer_route(traffic: Traffic, start: StartProgram) -> None:
    """GRPCRoute of another namespace: counts for the clients of that namespace alone, in place of all others"""
    own, producer, consumer, _ = traffic.backends
    traffic.apply(
        service(SERVICE, [own]),
        service("producer", [producer]),
        service("consumer", [consumer]),
        route("""
        - matches: [{headers: [{name: x-user, value: ann}]}]
          backendRefs: [{name: producer, port: 50051}]
        - backendRefs: [{name: hello-server, port: 50051}]
        """),
        route("- backendRefs: [{name: consumer, namespace: default, port: 50051}]", namespace="shop"),
    )
    here, there = opened(start), opened(start, node_id="shop", namespace="shop")
    ann = {"x-user": "ann"}
    assert call(here, 2).hosts == 2 * [own.name]
    assert call(here, 2, metadata=ann).hosts == 2 * [producer.name]
    assert call(there, 2).hosts == 2 * [consumer.name]
    assert call(there, 2, metadata=ann).hosts == 2 * [consumer.name]
    assert traffic.counts() == [2, 2, 4, 0]


def test_refused_expressions(traffic: Traffic, start: StartProgram) -> None:
    """GRPCRoute: expressions that RE2 refuses: their rules are dropped, no client refuses or crashes, the others are served"""
    bad, good, rest, _ = traffic.backends
    traffic.apply(
        service(SERVICE, [rest]),
        service("bad", [bad]),
        service("good", [good]),
        route("""
        - matches: [{headers: [{name: x-user, type: RegularExpression, value: "greet("}]}]
          backendRefs: [{name: bad, port: 50051}]
        - matches: [{headers: [{name: x-user, type: RegularExpression, value: "[z-a]"}]}]
          backendRefs: [{name: bad, port: 50051}]
        - matches: [{method: {type: RegularExpression, service: "greeter.v1.Greeter", method: "(?<!x)Other"}}]
          backendRefs: [{name: bad, port: 50051}]
        - matches: [{headers: [{name: x-user, type: RegularExpression, value: "an+"}]}]
          backendRefs: [{name: good, port: 50051}]
        - backendRefs: [{name: hello-server, port: 50051}]
        """),
    )
    client = opened(start)
    assert call(client, 2, metadata={"x-user": "ann"}).hosts == 2 * [good.name]
    assert call(client, 2, metadata={"x-user": "greet("}).hosts == 2 * [rest.name]
    assert call(client, 2, method=OTHER).hosts == 2 * [rest.name]
    assert traffic.counts() == [0, 2, 4, 0]


# Policies of calls


@pytest.mark.smoke
def test_retries(traffic: Traffic, start: StartProgram, note: Note) -> None:
    """`retry`: `attempts: 2` makes 3 tries; codes that are not listed are not tried again"""
    backend = traffic.backends[0]
    traffic.apply(
        service(SERVICE, [backend]), policy("retry: {codes: [UNAVAILABLE], attempts: 2, backoff: 25ms}")
    )
    client = opened(start)
    backend.fail(grpc.StatusCode.UNAVAILABLE)
    assert only(call(client))["code"] == "UNAVAILABLE"
    assert [attempt.previous for attempt in backend.take()] == [0, 1, 2]
    backend.fail(grpc.StatusCode.INTERNAL)
    assert only(call(client))["code"] == "INTERNAL"
    assert len(backend.take()) == 1
    backend.fail(grpc.StatusCode.UNAVAILABLE, every=2)
    assert call(client, 20).failures == []
    note(f"3 tries; with every 2nd try failing, 20 calls of 20 succeed in {len(backend.take())} tries")


def test_most_retries(traffic: Traffic, start: StartProgram, note: Note) -> None:
    """`retry.attempts: 4`, the most: 5 tries; every code that can be listed"""
    backend = traffic.backends[0]
    codes = "[CANCELLED, DEADLINE_EXCEEDED, INTERNAL, RESOURCE_EXHAUSTED, UNAVAILABLE]"
    traffic.apply(
        service(SERVICE, [backend]), policy(f"retry: {{codes: {codes}, attempts: 4, backoff: 10ms}}")
    )
    client = opened(start)
    for name in codes.strip("[]").split(", "):
        backend.fail(grpc.StatusCode[name])
        assert only(call(client))["code"] == name
        assert len(backend.take()) == 5, name
    note("5 tries")


def test_policy_of_a_rule(traffic: Traffic, start: StartProgram) -> None:
    """a policy of a GRPCRoute or of one of its rules wins over the Service's, field by field"""
    backend = traffic.backends[0]
    traffic.apply(
        service(SERVICE, [backend]),
        route("""
        - name: fragile
          matches: [{method: {service: greeter.v1.Greeter, method: Other}}]
          backendRefs: [{name: hello-server, port: 50051}]
        - backendRefs: [{name: hello-server, port: 50051}]
        """),
        policy("retry: {codes: [UNAVAILABLE], attempts: 3, backoff: 10ms}"),
        policy(
            "retry: {codes: [UNAVAILABLE], attempts: 1, backoff: 10ms}",
            name="fragile",
            target=of_route(SERVICE, "fragile"),
        ),
    )
    client = opened(start)
    backend.fail(grpc.StatusCode.UNAVAILABLE)
    only(call(client))
    assert len(backend.take()) == 4
    only(call(client, method=OTHER))
    assert len(backend.take()) == 2


@pytest.mark.not_for("Rust", "tonic-xds reads no `max_stream_duration`; the call's own deadline counts")
def test_timeout(traffic: Traffic, start: StartProgram, note: Note, language: str) -> None:
    """`timeout: 6s` against a server that hangs: DEADLINE_EXCEEDED after"""
    backend = traffic.backends[0]
    traffic.apply(service(SERVICE, [backend]), policy("timeout: 6s"))
    client = opened(start)
    assert call(client).failures == []
    backend.hold()
    failure = only(call(client, seconds=20))
    assert failure["code"] == "DEADLINE_EXCEEDED"
    assert 3_500 < failure["milliseconds"] < 7_000
    early = ": C-core ends calls 1 to 2 s early (grpc/grpc#34547)" if language == "Python" else ""
    note(f"{failure['milliseconds'] / 1000:.1f} s{early}")


@pytest.mark.not_for("Rust", NO_FILTERS)
def test_abort(traffic: Traffic, start: StartProgram, note: Note) -> None:
    """`fault.abort` of 30 %, within the binomial 99.9 % interval"""
    traffic.apply(
        service(SERVICE, traffic.backends[:1]),
        policy("fault: {abort: {code: RESOURCE_EXHAUSTED, percent: 30}}"),
    )
    replies = call(opened(start), 600, concurrency=8)
    assert {failure["code"] for failure in replies.failures} == {"RESOURCE_EXHAUSTED"}
    assert is_share(len(replies.failures), 600, 0.3), len(replies.failures)
    assert traffic.counts() == [600 - len(replies.failures), 0, 0, 0]
    note(f"{len(replies.failures) / 6:.0f} %")


@pytest.mark.not_for("Rust", NO_FILTERS)
def test_delay(traffic: Traffic, start: StartProgram, note: Note) -> None:
    """`fault.delay` of 1 s for 50 %, within the binomial 99.9 % interval"""
    traffic.apply(
        service(SERVICE, traffic.backends[:1]), policy("fault: {delay: {duration: 1s, percent: 50}}")
    )
    client = opened(start)
    call(client)
    replies = call(client, 120, concurrency=20)
    assert replies.failures == []
    delayed = sum(milliseconds > 950 for milliseconds in replies.milliseconds)
    assert is_share(delayed, 120, 0.5), delayed
    note(f"{delayed / 1.2:.0f} %")


# Policies of backends


@pytest.mark.not_for("Rust", NO_CLUSTER_FIELDS)
def test_circuit_breaking(traffic: Traffic, start: StartProgram, note: Note) -> None:
    """`maxConcurrentRequests: 5`: while 5 calls are held, 15 more fail at once with UNAVAILABLE, with this text"""
    backend = traffic.backends[0]
    traffic.apply(service(SERVICE, [backend]), policy("maxConcurrentRequests: 5"))
    client = opened(start)
    assert call(client).failures == []
    backend.hold()
    backend.take()
    client.start_load("a", parallelism=5, interval=0.01, seconds=60)
    wait_until("5 calls to be held", lambda: backend.seen == 5)
    backend.take()
    replies = call(client, 15, concurrency=15)
    assert replies.hosts == []
    assert {failure["code"] for failure in replies.failures} == {"UNAVAILABLE"}
    assert max(failure["milliseconds"] for failure in replies.failures) < AT_ONCE
    assert backend.take() == []
    backend.heal()
    assert client.stop_load("a").failures == []
    note(replies.failures[0]["details"])

    # Some languages count a call when its stream is created, not when its endpoint is chosen.
    backend.delay(1)
    burst = call(client, 20, concurrency=20).hosts
    assert len(burst) >= 5
    note(f"of 20 begun in the same moment, {len(burst)} are sent")


@pytest.mark.not_for("Rust", NO_CLUSTER_FIELDS)
@pytest.mark.parametrize(
    "algorithm",
    [
        "failurePercentage: {threshold: 50, minimumHosts: 3, requestVolume: 5, enforcementPercent: 100}",
        "successRate: {stdevFactor: 1000, minimumHosts: 3, requestVolume: 5, enforcementPercent: 100}",
    ],
    ids=["failurePercentage", "successRate"],
)
def test_outlier_detection(traffic: Traffic, start: StartProgram, algorithm: str) -> None:
    """`outlierDetection`, `failurePercentage` and `successRate`: one endpoint of four fails always: ejected, and back when healed"""
    bad, *_ = traffic.backends
    traffic.apply(
        service(SERVICE, traffic.backends),
        policy(f"""
        outlierDetection:
          interval: 1s
          baseEjectionTime: 4s
          maxEjectionTime: 4s
          maxEjectionPercent: 50
          {algorithm}
        """),
    )
    client = opened(start)
    bad.fail(grpc.StatusCode.INTERNAL)
    failures = call_until(
        client, "a", "an ejection", lambda seen: seen.failures == [], times=40, patient=False
    )
    assert failures != []
    traffic.counts()
    assert call(client, 80).failures == []
    ejected, *others = traffic.counts()
    assert ejected == 0
    assert min(others) > 0
    bad.heal()
    call_until(client, "a", "the endpoint to be used again", lambda _: bad.take() != [], times=20)
    call_until(client, "a", "an even share", lambda seen: seen.hosts.count(bad.name) == 10, times=40)


@pytest.mark.not_for("Rust", NO_RING_HASH)
def test_ring_hash(traffic: Traffic, start: StartProgram, note: Note) -> None:
    """`loadBalancing: RingHash`: one value of the header, one endpoint; 200 values use all four; when one endpoint goes, of the others' values move"""
    sticky = policy("loadBalancing: {type: RingHash, ringHash: {header: x-user, minimumRingSize: 1024}}")
    traffic.apply(service(SERVICE, traffic.backends), sticky)
    client = opened(start)
    assert len(set(call(client, 30, metadata={"x-user": "ann"}).hosts)) == 1
    before = endpoints_of_users(client, traffic)
    assert set(before.values()) == {backend.name for backend in traffic.backends}
    assert before == endpoints_of_users(client, traffic)

    gone = traffic.backends[0].name
    lost = next(user for user, name in before.items() if name == gone)
    traffic.apply(service(SERVICE, traffic.backends[1:]), sticky)
    call_until(client, "a", "the change", lambda seen: gone not in seen.hosts, metadata={"x-user": lost})
    after = endpoints_of_users(client, traffic)
    kept = [user for user, name in before.items() if name != gone]
    moved = sum(before[user] != after[user] for user in kept) / len(kept)
    assert moved <= 0.45
    assert after == endpoints_of_users(client, traffic)
    note(f"{moved:.0%}")


def endpoints_of_users(client: Program, traffic: Traffic) -> dict[str, str]:
    """Makes a call for each user; returns the endpoints that they reached."""
    traffic.counts()
    for user in USERS:
        assert call(client, metadata={"x-user": user}).failures == []
    seen = counts_by_header(traffic.backends, "x-user")
    assert seen.keys() == set(USERS)
    return dict(seen)


@pytest.mark.not_for("Rust", NO_CLUSTER_FIELDS)
@pytest.mark.parametrize("out_of_band", [False, True], ids=["per-call", "out-of-band"])
def test_weighted_round_robin(
    traffic: Traffic, start: StartProgram, note: Note, language: str, *, out_of_band: bool
) -> None:
    """`loadBalancing: WeightedRoundRobin`, utilisation 0.9, 0.1, 0.1: shares by reports with calls, and out of band"""
    backends = traffic.backends[:3]
    for backend, utilization in zip(backends, (0.9, 0.1, 0.1), strict=True):
        backend.utilization = utilization
        backend.reports_with_calls = not out_of_band
    period = ", outOfBandReportingPeriod: 1s" if out_of_band else ""
    traffic.apply(
        service(SERVICE, backends),
        policy(f"""
        loadBalancing:
          type: WeightedRoundRobin
          weightedRoundRobin: {{blackoutPeriod: 1s, weightUpdatePeriod: 1s{period}}}
        """),
    )
    client = opened(start)
    if language == "Node":
        call_until(client, "a", "all three", lambda seen: len(set(seen.hosts)) == 3)
        assert set(Counter(call(client, 60).hosts).values()) == {20}
        note("n/a in grpc-js: it has no such policy; plain RoundRobin, evenly")
        return
    first = backends[0].name
    call_until(client, "a", "the weights", lambda seen: seen.hosts.count(first) <= 8, times=60)
    traffic.counts()
    assert call(client, 190).failures == []
    counts = traffic.counts()[:3]
    assert counts[0] < 0.6 * min(counts[1:])
    assert all(bool(backend.load_streams) is out_of_band for backend in backends)
    note(":".join(map(str, counts)))


# Zones


@pytest.mark.not_for("Rust", NO_PRIORITIES)
def test_zones(traffic: Traffic, start: StartProgram) -> None:
    """zone hints: all calls stay in the client's zone; spill over when its endpoints refuse or are gone, and back; without a zone: all alike"""
    near, far = traffic.backends[:2], traffic.backends[2:]

    def hinted(backend: Backend) -> objects.Object:
        zone = "a" if backend in near else "b"
        return endpoint(SERVICE, backend, zone=zone, hints={"forZones": [{"name": zone}]})

    def apply(*backends: Backend) -> None:
        traffic.apply(
            objects.service(SERVICE, trafficDistribution="PreferClose"), [hinted(each) for each in backends]
        )

    names = [{backend.name for backend in backends} for backends in (near, far)]
    apply(*near, *far)
    client, without = opened(start, zone="a"), opened(start, node_id="without-zone")
    call_until(client, "a", "both of the zone", lambda seen: set(seen.hosts) == names[0])
    traffic.counts()
    assert call(client, 40).failures == []
    assert traffic.counts()[2:] == [0, 0]
    call_until(without, "a", "all alike", lambda seen: len(set(seen.hosts)) == 4, times=8)

    for backend in near:
        backend.stop()
    call_until(client, "a", "the spill-over", lambda seen: set(seen.hosts) == names[1], patient=False)
    for backend in near:
        backend.start()
    call_until(client, "a", "the return", lambda seen: set(seen.hosts) == names[0], patient=False)

    apply(*far)
    failures = call_until(
        client, "a", "the spill-over", lambda seen: set(seen.hosts) == names[1], patient=False
    )
    apply(*near, *far)
    failures += call_until(client, "a", "the return", lambda seen: set(seen.hosts) == names[0], patient=False)
    assert failures == []


@pytest.mark.not_for("Rust", NO_PRIORITIES)
def test_hints_of_the_same_host(traffic: Traffic, start: StartProgram) -> None:
    """node hints (`PreferSameNode`): all calls to the client's node, then to its zone, then to all others"""
    here, near, *far = traffic.backends

    def hinted(backend: Backend) -> objects.Object:
        zone = "b" if backend in far else "a"
        node = f"node-{backend.name}"
        hints = {"forZones": [{"name": zone}], "forNodes": [{"name": node}]}
        return endpoint(SERVICE, backend, zone=zone, node=node, hints=hints)

    def apply(*backends: Backend) -> None:
        traffic.apply(
            objects.service(SERVICE, trafficDistribution="PreferSameNode"),
            [hinted(each) for each in backends],
        )

    apply(here, near, *far)
    client = opened(start, zone="a", node_name=f"node-{here.name}")
    assert call(client, 20).hosts == 20 * [here.name]
    apply(near, *far)
    failures = call_until(client, "a", "the zone", lambda seen: set(seen.hosts) == {near.name}, patient=False)
    apply(*far)
    others = {backend.name for backend in far}
    failures += call_until(client, "a", "the others", lambda seen: set(seen.hosts) == others, patient=False)
    assert failures == []


# All together


@pytest.mark.not_for("Rust", NO_RING_HASH)
def test_everything_at_once(traffic: Traffic, start: StartProgram) -> None:
    """everything at once on one Service: no client refuses it, and each feature works"""
    canary, *stable = traffic.backends
    traffic.apply(everything(stable, canary))
    client = opened(start, zone="a")
    replies = call(client, 200, concurrency=4, metadata={"x-user": "ann"})
    assert replies.failures == []
    assert len(set(replies.hosts)) == 2
    assert is_share(replies.hosts.count(canary.name), 200, 0.1)
    canary.fail(grpc.StatusCode.INTERNAL, every=2)
    canary.take()
    assert call(client, 10, metadata={"x-stage": "canary"}).hosts == 10 * [canary.name]
    assert call(client, 10, method=OTHER).hosts == 10 * [canary.name]
    assert any(attempt.previous for attempt in canary.take())
