"""Random clients and a random mesh: once all messages are delivered, a client holds exactly the server's state for it.

A client is never sent a route with requests for a cluster that the route it has does not name.

Requests and responses are delayed at random, so that they cross each other as on a network.
"""

from collections import Counter, deque

from envoy.service.discovery.v3 import discovery_pb2
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.protocol.client import CDS, LDS, MESSAGES, RDS, Client, find, make_cache, publish, service
from xds_server.ads.session import Response
from xds_server.model.service import PortName, ServiceName
from xds_server.model.tables import ROUTES, Entry
from xds_server.model.traffic import Backend, Match, RouteScope, Rule
from xds_server.resources.types import ResourceType

SERVICES = ["a", "b", "c"]
CANONICAL = [f"{name}.shop:{port}" for name in SERVICES for port in (80, 81)]
NAMES = [*CANONICAL[:4], "nowhere.shop:80", "a", "b.shop.svc:80", "*"]
KINDS = list(ResourceType)

kinds = st.sampled_from(KINDS)
name_sets = st.sets(st.sampled_from(NAMES), max_size=len(NAMES)).map(sorted)
who = st.integers(0, 1)
moves = st.lists(
    st.sampled_from(["server reads", "server writes", "client accepts", "client refuses"]), max_size=12
)


def clusters(body):
    """The clusters that a route names."""
    found = set()
    for route in MESSAGES[RDS].FromString(body).virtual_hosts[0].routes:
        found |= {route.route.cluster, *(c.name for c in route.route.weighted_clusters.clusters)} - {""}
    return found


def wanted(held):
    return {*held.names, *(["*"] if held.wildcard else [])}


class Stream:
    """A client, its session, and the messages in flight between them."""

    def __init__(self, cache):
        self.client = Client(cache)
        self.requests: deque[discovery_pb2.DiscoveryRequest] = deque()
        self.responses: deque[Response] = deque()
        self.due: Counter[ResourceType] = Counter()
        self.sent: Counter[ResourceType] = Counter()
        self.introducing = False
        self.refused = False  # a client that refuses routes has others than the server knows

    def ask(self, kind, names, **fields):
        """Makes the client send a request; each new subscription is a reason for a response."""
        held = self.client.held[kind]
        before = wanted(held)
        self.requests.append(self.client.ask(kind, names, **fields))
        # So is a name unsubscribed while the wildcard stays, which may cover the name or not.
        self.due[kind] += not wanted(held) <= before or (held.wildcard and wanted(held) != before)

    def read_request(self):
        self.client.session.request(self.requests.popleft())

    def write_response(self):
        response = self.client.next()
        if response is not None:
            self.responses.append(response)
            self.sent[response.type] += 1
            if response.introduces:
                self.introducing = True
                self.due[RDS] += 1
        return response

    def introduce(self):
        """Lets the moment pass that the client has to set up new clusters."""
        self.introducing = self.client.session.check_introductions()

    def read_response(self, *, refuse):
        response = self.responses.popleft()
        before = dict(self.client.held[RDS].resources)
        _, _, answer = self.client.take(response, refuse=refuse)
        if response.type is RDS and not self.refused:
            for name, body in self.client.held[RDS].resources.items():
                self.check_introduction(before.get(name), body)
        self.refused |= refuse and response.type is RDS
        self.requests.append(answer)

    def check_introduction(self, before, after):
        """Checks that the last route alone, which matches nothing, names clusters that are new to the client."""
        if before is None or before == after or (new := clusters(after) - clusters(before)) == set():
            return
        routes = MESSAGES[RDS].FromString(after).virtual_hosts[0].routes
        assert {c.name for c in routes[-1].route.weighted_clusters.clusters} >= new
        assert routes[-1].match.path

    def come_to_rest(self):
        while self.requests or self.responses or self.write_response() or self.introducing:
            if self.introducing:
                self.introduce()
            while self.requests:
                self.read_request()
            while self.responses:
                self.read_response(refuse=False)


class Streams(RuleBasedStateMachine):
    """Two streams on one cache."""

    @initialize(synced=st.booleans())
    def start(self, synced):
        self.cache = make_cache()
        self.bodies = {}
        self.versions = {}
        if synced:
            self.publish_changes()
        self.streams = [Stream(self.cache) for _ in range(2)]

    @rule(who=who, kind=kinds, names=name_sets)
    def subscribe(self, who, kind, names):
        self.streams[who].ask(kind, names)

    @rule(who=who, kind=kinds, names=name_sets)
    def give_up_and_ask_again(self, who, kind, names):
        stream = self.streams[who]
        if stream.client.held[kind].was_named:
            stream.ask(kind, [])
            stream.ask(kind, names)

    @rule(who=who, kind=kinds)
    def repeat_with_a_stale_nonce(self, who, kind):
        stream = self.streams[who]
        held = stream.client.held[kind]
        if held.nonce:
            stream.ask(kind, held.names, nonce="stale")

    @rule(who=who, moves=moves)
    def time_passes(self, who, moves):
        stream = self.streams[who]
        for move in moves:
            if move == "server reads" and stream.requests:
                stream.read_request()
            elif move == "server writes" and (response := stream.write_response()) is not None:
                self.compare_with_others(response)
            elif move.startswith("client") and stream.responses:
                stream.read_response(refuse=move == "client refuses")

    @rule(
        name=st.sampled_from(SERVICES),
        last=st.sets(st.integers(1, 4)),
        ports=st.sampled_from([(80,), (81,), (80, 81)]),
    )
    def publish(self, name, last, ports):
        self.publish_changes(service(name, *(f"10.0.0.{n}" for n in last), ports=ports))

    @rule(
        name=st.sampled_from(SERVICES),
        split=st.dictionaries(st.sampled_from(SERVICES), st.integers(1, 3), max_size=3),
    )
    def route(self, name, split):
        """Splits the requests to a service between services; an empty split takes the route away."""
        port = PortName(ServiceName("shop", name), 80)
        backends = tuple(Backend(PortName(ServiceName("shop", n), 80), w) for n, w in sorted(split.items()))
        rules = (Rule(Match(), backends),) if split else None
        self.publish_changes(more={Entry(ROUTES, RouteScope(port)): rules})

    @rule(who=who)
    def time_for_new_clusters_passes(self, who):
        if self.streams[who].introducing:
            self.streams[who].introduce()

    @rule(name=st.sampled_from(SERVICES))
    def delete(self, name):
        self.publish_changes(gone=[name])

    def publish_changes(self, *services, gone=(), more=None):
        """Each new or changed resource is a reason for a response, and each deleted one, if its type has deletions."""
        before = self.everything()
        publish(self.cache, *services, more or {}, gone=gone)
        after = self.everything()
        for stream in getattr(self, "streams", ()):
            for kind in KINDS:
                mine = [key for key in after if key[0] is kind]
                stream.due[kind] += any(after[k] and after[k] != before[k] for k in mine)
                stream.due[kind] += kind.is_full_state and any(before[k] and not after[k] for k in mine)

    def everything(self):
        return {(k, n): find(self.cache, k, n) for k in KINDS for n in {*NAMES, *CANONICAL}}

    @rule(who=who)
    def settle(self, who):
        """Delivers all messages; afterwards neither side has anything to send."""
        stream = self.streams[who]
        stream.come_to_rest()
        if self.cache.synced:
            for kind in KINDS:
                self.compare(stream.client, kind)

    def compare(self, client, kind):
        held = client.held[kind]
        names = set(held.names)
        if held.wildcard:
            names |= set(self.cache.canonical_names())
        view = {n: find(self.cache, kind, n) for n in names - {"*"}}
        there = {n: r.body for n, r in view.items() if r is not None}
        told = {h.name: h.resource.body for h in client.session.statuses() if h.type is kind and h.resource}
        assert told == there
        refused = {h.name for h in client.session.statuses() if h.type is kind and h.rejection}
        mine = {n: body for n, body in held.resources.items() if n not in refused}
        if not kind.is_full_state:
            # These types have no deletions: resources that exist must be equal, others may be left over.
            mine = {n: body for n, body in mine.items() if n in there}
        assert mine == {n: body for n, body in there.items() if n not in refused}

    @rule(who=who)
    def reconnect(self, who):
        old = self.streams[who]
        old.client.session.close()
        new = self.streams[who] = Stream(self.cache)
        for kind in KINDS:
            held = old.client.held[kind]
            if held.names:
                new.ask(kind, held.names, version=held.version)

    def compare_with_others(self, response):
        """Checks a response against all responses to all clients."""
        message = discovery_pb2.DiscoveryResponse.FromString(response.body)
        content = tuple(item.value for item in message.resources)
        assert self.bodies.setdefault((response.type, response.version), content) == content
        assert self.versions.setdefault((response.type, content), response.version) == response.version

    @invariant()
    def versions_of_resources_are_equal_exactly_when_bytes_are(self):
        for key, _, resource, _ in self.cache.resources():
            if resource is not None:
                assert self.bodies.setdefault((key.type, resource.version), resource.body) == resource.body
                assert (
                    self.versions.setdefault((key.type, resource.body), resource.version) == resource.version
                )

    @invariant()
    def responses_never_exceed_reasons(self):
        for stream in self.streams:
            assert stream.sent <= stream.due, (stream.sent, stream.due)

    def teardown(self):
        if hasattr(self, "streams"):
            for who, stream in enumerate(self.streams):
                self.settle(who)
                stream.client.session.close()
            assert list(self.cache.resources()) == []


Streams.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestStreams = Streams.TestCase

assert {LDS, CDS} == {kind for kind in KINDS if kind.is_full_state}
