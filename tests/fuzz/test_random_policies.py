"""Random policies in bulk: none of them stops or confuses the assembler, and good ones are served.

`task test:fuzz SCALE=1` puts a hundred thousand policies; the default test run puts a hundredth. The seed is printed;
SEED repeats a run.
"""

import os
import random
from collections import Counter
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support.convert import convert
from tests.support.policies import ACCEPTED, EVERYTHING, REFUSED, ROUTE, SERVICE, policy
from xds_server.errors import MalformedObjectError
from xds_server.mesh.policies import PolicyAssembler
from xds_server.model.service import Port, PortName, Service, ServiceName
from xds_server.model.tables import POLICIES, SECURED, Entry
from xds_server.objects import meta
from xds_server.objects.policy import GRPCBackendPolicy

SCALE = float(os.environ.get("SCALE", "0.01"))
SEED = int(os.environ.get("SEED", random.randrange(1 << 32)))
TEXTS = [
    "",
    "0s",
    "5s",
    "24h",
    "1ms",
    "99999h99999h",
    "-1s",
    "x-user",
    "-bin",
    "RingHash",
    "UNAVAILABLE",
    "é\n",
]
NUMBERS = [0, 1, -1, 100, 101, 4096, 1 << 31, 1 << 70, 0.5]
NAMES = ["web", "split", "other"]
SECTIONS = ["grpc", "admin", "canary", "", "gone"]
WEB = ServiceName("shop", "web")
GOOD = ServiceName("shop", "good")
SPLIT = ("shop", "split")


@pytest.fixture
def chance():
    print(f"SEED={SEED}")
    return random.Random(SEED)


def mutated(chance, item):
    """Returns a document with random parts replaced, removed or repeated."""
    if chance.random() < 0.03:
        return chance.choice([None, True, [], {}, [None], {"a": 1}, *TEXTS, *NUMBERS])
    if isinstance(item, dict):
        return {name: mutated(chance, value) for name, value in item.items() if chance.random() > 0.03}
    if isinstance(item, list):
        return [mutated(chance, value) for value in item for _ in range(chance.choice([1, 1, 1, 1, 0, 2]))]
    if isinstance(item, str) and chance.random() < 0.05:
        return chance.choice(TEXTS)
    if isinstance(item, int) and chance.random() < 0.05:
        return chance.choice(NUMBERS)
    return item


def target(chance):
    found = {**chance.choice([SERVICE, SERVICE, ROUTE]), "name": chance.choice(NAMES)}
    return {**found, "sectionName": chance.choice(SECTIONS)} if chance.random() < 0.4 else found


def document(chance):
    """Returns a policy, from valid to noise; its metadata is valid, so that it can be put."""
    spec = chance.choice(
        [
            EVERYTHING,
            *(item["spec"] for item in ACCEPTED.values()),
            *(item["spec"] for item, _ in REFUSED.values()),
        ]
    )
    if chance.random() < 0.6:
        spec = {**spec, "targetRefs": [target(chance) for _ in range(chance.randrange(1, 4))]}
    found = policy(
        f"p{chance.randrange(300)}",
        created=chance.choice(["", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "yesterday"]),
    )
    return {**found, "spec": mutated(chance, spec)}


def route(chance):
    rules = [{"name": name} for name in chance.sample(SECTIONS, 2)]
    return convert(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GRPCRoute",
            "metadata": {"name": "split", "namespace": "shop"},
            "spec": {"rules": chance.choice([None, [], rules, [{}]])},
        }
    )


def service(chance, name=WEB):
    names = chance.sample(["grpc", "admin", "other"], chance.randrange(1, 4))
    return Service(name, tuple(Port(port, 80 + index, is_grpc=True) for index, port in enumerate(names)))


class Mesh:
    """Services, a route and policies, and what an assembler makes of them as they change."""

    def __init__(self, chance):
        self.chance = chance
        self.services = {WEB: service(chance), GOOD: Service(GOOD, (Port("grpc", 80, is_grpc=True),))}
        self.routes = {SPLIT: route(chance)}
        self.objects: dict[meta.Key, GRPCBackendPolicy] = {}
        self.idle = ""
        self.policies = PolicyAssembler(self.services, self.routes, lambda *_: self.idle)
        self.table: dict[Entry, Any] = {}

    def change(self):
        """Changes something at random, and returns what."""
        dice = self.chance.random()
        if dice < 0.03:
            return self.change_service()
        if dice < 0.06:
            return self.change_route()
        if dice < 0.2:
            key = ("shop", f"p{self.chance.randrange(300)}")
            self.objects.pop(key, None)
            self.policies.put(key, None)
            return "removed"
        try:
            return self.put(document(self.chance))
        except MalformedObjectError:
            return "malformed"

    def change_service(self):
        self.services.pop(WEB, None)
        if self.chance.random() < 0.7:
            self.services[WEB] = service(self.chance)
        self.policies.touch_service(WEB)
        return "service"

    def change_route(self):
        self.routes.pop(SPLIT, None)
        if self.chance.random() < 0.7:
            self.routes[SPLIT] = route(self.chance)
        self.idle = self.chance.choice(["", "", "the route is not accepted"])
        self.policies.touch_route(SPLIT)
        return "route"

    def put(self, item):
        found = convert(item)
        self.objects[meta.key(found)] = found
        self.policies.put(meta.key(found), found)
        return "put"

    def flush(self):
        for entry, value in self.policies.flush().items():
            assert entry.table in {POLICIES, SECURED}
            assert value != self.table.get(entry), "only what changed is published"
            if value is None:
                del self.table[entry]
            else:
                self.table[entry] = value
        self.policies.judge()

    def check(self):
        """Asserts that everything is as an assembler has it that sees all objects for the first time."""
        self.flush()
        fresh = PolicyAssembler(self.services, self.routes, lambda *_: self.idle)
        for key, item in self.objects.items():
            fresh.put(key, item)
        assert self.table == fresh.flush()
        fresh.judge()
        for key in self.objects:
            assert self.policies.status(key) == fresh.status(key)
        for rule in SECTIONS:
            assert self.policies.of_route(SPLIT, rule) == fresh.of_route(SPLIT, rule)
        problems = set(self.policies.problems())
        assert problems == set(fresh.problems())
        assert not [problem for problem in problems if "can't be read" in problem.reason]


@pytest.mark.timeout(7200)
def test_policies(chance):
    mesh = Mesh(chance)
    outcomes = Counter[str]()
    total = round(100_000 * SCALE)
    with capture_logs():
        for number in range(total):
            outcomes[mesh.change()] += 1
            if chance.random() < 0.7:
                mesh.flush()
            if number % 500 == 0:
                mesh.check()
        print(dict(outcomes))
        mesh.put(policy("good", {**SERVICE, "name": "good"}, **EVERYTHING))
        mesh.check()
    assert mesh.table[Entry(POLICIES, PortName(GOOD, 80))].call.timeout == 10.0
    assert outcomes.keys() == {"put", "malformed", "removed", "service", "route"}
