"""Random changes of Services, EndpointSlices and security policies: the tables are as if all had been seen at once.

What is secured must not depend on the order in which things are learnt. The default run takes 20 meshes, `task
test:fuzz SCALE=1` two thousand. The seed is printed; SEED repeats a run.
"""

import os
import random
from collections.abc import Iterable
from typing import Any

from structlog.testing import capture_logs

from tests.support import objects
from tests.support.convert import convert
from tests.support.policies import ROUTE, SERVICE, policy
from xds_server.mesh.store import Store
from xds_server.model.tables import ENDPOINTS, POLICIES, SECURED, SERVERS, SERVICES, Changes
from xds_server.objects import kinds, meta
from xds_server.objects.kinds import Collection

SCALE = float(os.environ.get("SCALE", "0.01"))
SEED = int(os.environ.get("SEED", random.randrange(1 << 32)))
ALL_SERVICES, ALL_SLICES, ALL_POLICIES = ALL = [
    Collection(kind) for kind in (kinds.SERVICE, kinds.ENDPOINT_SLICE, kinds.GRPC_BACKEND_POLICY)
]
NAMESPACES, NAMES, PODS, PORTS = (
    ("shop", "bank"),
    ("web", "api"),
    ("pod-1", "pod-2", "pod-3"),
    ("grpc", "admin"),
)
STEPS = 40
SPECS: list[dict[str, Any]] = [
    {},
    {"timeout": "10s"},
    {"timeout": "1s"},
    *(
        {"tls": {"mode": mode, "subjectAltNames": ["web"]}}
        for mode in ("Simple", "Mutual", "Strict", "Strange")
    ),
    {"authorization": {}},
]


class Mesh(Store):
    """A store and the tables that it publishes."""

    def __init__(self) -> None:
        self.tables: dict[Any, dict[Any, Any]] = {}
        super().__init__(ALL, self._apply)
        self.replace({collection: [] for collection in ALL})

    def _apply(self, changes: Changes) -> None:
        for (table, key), value in changes.items():
            found = self.tables.setdefault(table, {})
            if value is None:
                del found[key]
            else:
                found[key] = value

    def seen(self) -> dict[str, Any]:
        """Everything that is known, to compare."""
        tables = (SERVICES, ENDPOINTS, POLICIES, SECURED, SERVERS)
        return {
            **{table.name: self.tables.get(table, {}) for table in tables},
            "problems": {(problem.kind, problem.key, problem.reason) for problem in self.problems},
        }


def service(chance: random.Random) -> dict[str, Any]:
    ports = [{"name": name, "port": 80 + place} for place, name in enumerate(PORTS[: chance.randint(0, 2)])]
    return objects.service(chance.choice(NAMES), namespace=chance.choice(NAMESPACES), ports=ports)


def endpoint_slice(chance: random.Random) -> dict[str, Any]:
    namespace, owner = chance.choice(NAMESPACES), chance.choice(NAMES)
    fields = objects.endpoints(
        *(f"10.0.0.{chance.randint(1, 3)}" for _ in range(chance.randint(0, 3))), port=8080
    )
    for endpoint in fields["endpoints"]:
        if chance.random() < 0.7:
            target = {"kind": "Pod", "namespace": namespace, "name": chance.choice(PODS)}
            endpoint["targetRef"] = target
    fields["ports"][0]["name"] = chance.choice(PORTS)
    return objects.endpoint_slice(f"slice-{chance.randint(1, 3)}", owner, namespace=namespace, **fields)


def any_policy(chance: random.Random) -> dict[str, Any]:
    targets = [{**SERVICE, "name": chance.choice(NAMES)} for _ in range(chance.randint(1, 2))]
    if chance.random() < 0.4:
        targets[0]["sectionName"] = chance.choice(PORTS)
    if chance.random() < 0.2:
        targets.append(ROUTE)
    created = chance.choice(["", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"])
    name, namespace = chance.choice(["p1", "p2", "p3"]), chance.choice(NAMESPACES)
    return policy(name, *targets, namespace=namespace, created=created, **chance.choice(SPECS))


MAKERS = {ALL_SERVICES: service, ALL_SLICES: endpoint_slice, ALL_POLICIES: any_policy}


def changed(chance: random.Random, mesh: Mesh, known: dict[Collection, dict[meta.Key, Any]]) -> None:
    """Changes something at random."""
    collection = chance.choice(ALL)
    if chance.random() < 0.3 and known[collection]:
        key = chance.choice(sorted(known[collection]))
        del known[collection][key]
        mesh.remove(collection, key)
        return
    made: Iterable[Any] = [convert(MAKERS[collection](chance)) for _ in range(chance.choice([1, 1, 1, 3]))]
    for item in made:
        known[collection][meta.key(item)] = item
        if chance.random() < 0.7:
            mesh.put(collection, item)
    mesh.replace({collection: known[collection].values()})


def test_security_does_not_depend_on_the_order() -> None:
    print(f"SEED={SEED}")
    with capture_logs():
        for number in range(round(2_000 * SCALE)):
            chance = random.Random(SEED + number)
            mesh = Mesh()
            known: dict[Collection, dict[meta.Key, Any]] = {collection: {} for collection in ALL}
            for _ in range(STEPS):
                changed(chance, mesh, known)
                fresh = Mesh()
                fresh.replace({collection: items.values() for collection, items in known.items()})
                assert mesh.seen() == fresh.seen()
