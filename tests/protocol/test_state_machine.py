"""Random clients against a random mesh: at rest, what a client holds is exactly what the server has for it."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.protocol.client import CDS, LDS, Client, changes, service
from xds_server.cache import Cache, key_of
from xds_server.resources.types import ResourceType

SERVICES = ["a", "b", "c"]
NAMES = ["a.shop:80", "a.shop:81", "b.shop:80", "c.shop:80", "nowhere.shop:80", "a", "b.shop.svc:80", "*"]
KINDS = list(ResourceType)

kinds = st.sampled_from(KINDS)
name_sets = st.sets(st.sampled_from(NAMES), max_size=len(NAMES)).map(sorted)


class Streams(RuleBasedStateMachine):
    """Two streams on one cache."""

    @initialize(synced=st.booleans())
    def start(self, synced):
        self.cache = Cache("cluster.local")
        self.synced = synced
        if synced:
            self.cache.publish({})
        self.clients = [Client(self.cache) for _ in range(2)]
        self.versions = {}

    @rule(who=st.integers(0, 1), kind=kinds, names=name_sets)
    def subscribe(self, who, kind, names):
        client = self.clients[who]
        if not names and not client.held[kind].names:
            return  # a legacy wildcard, which the model does not follow
        client.send(kind, names)

    @rule(who=st.integers(0, 1), kind=kinds)
    def repeat_with_a_stale_nonce(self, who, kind):
        client = self.clients[who]
        held = client.held[kind]
        if held.nonce:
            client.send(kind, held.names, nonce="stale")

    @rule(
        name=st.sampled_from(SERVICES),
        last=st.sets(st.integers(1, 4)),
        ports=st.sampled_from([(80,), (81,), (80, 81)]),
    )
    def publish(self, name, last, ports):
        self.synced = True
        self.cache.publish(changes(service(name, *(f"10.0.0.{n}" for n in last), ports=ports)))

    @rule(name=st.sampled_from(SERVICES))
    def delete(self, name):
        self.synced = True
        self.cache.publish(changes(gone=[service(name).name]))

    @rule(who=st.integers(0, 1), refuse=st.sets(kinds))
    def settle(self, who, refuse):
        client = self.clients[who]
        seen = client.receive(refuse=refuse)
        # Two of a full-state type at most: what is new, then what is gone.
        for kind in KINDS:
            assert sum(1 for k, _ in seen if k is kind) <= (2 if kind.is_full_state else 1)
        assert client.receive() == [], "at rest there is nothing more to say"
        if self.synced:
            for kind in KINDS:
                self.compare(client, kind)

    def compare(self, client, kind):
        held = client.held[kind]
        names = set(held.names)
        if kind.is_full_state and "*" in names:
            names |= set(self.cache.canonical_names())
        view = {n: self.cache.get(key_of(kind, n, "shop")) for n in names - {"*"}}
        there = {n: r.body for n, r in view.items() if r is not None}
        if kind.is_full_state:
            assert held.resources == there
        else:
            # What is gone can't be unsaid for these types; what is there must be as it is.
            assert {n: held.resources.get(n) for n in there} == there

    @rule(who=st.integers(0, 1))
    def reconnect(self, who):
        old = self.clients[who]
        old.session.close()
        new = self.clients[who] = Client(self.cache)
        for kind in KINDS:
            if old.held[kind].names:
                new.send(kind, old.held[kind].names, nonce="", version=old.held[kind].version)

    @invariant()
    def equal_versions_mean_equal_bytes(self):
        for key, resource in self.cache.resources().items():
            if resource is not None:
                known = self.versions.setdefault((key.type, resource.version), resource.body)
                assert known == resource.body

    def teardown(self):
        if hasattr(self, "clients"):
            for client in self.clients:
                client.session.close()
            assert self.cache.resources() == {}


Streams.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestStreams = Streams.TestCase

assert {LDS, CDS} == {kind for kind in KINDS if kind.is_full_state}
