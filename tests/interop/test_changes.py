"""Clients in all languages under load while routes, weights, policies, backends and endpoints change 10 times a second."""

import random
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.interop.backend import Backend
from tests.interop.client import Program
from tests.interop.conftest import Note, build
from tests.interop.languages import LANGUAGES
from tests.interop.mesh import SERVICE, TARGET, Greeter, Mesh
from tests.interop.traffic import endpoint, service
from tests.support import objects, running
from tests.support.objects import Object
from tests.support.traffic import harmless_spec, policy, route
from tests.support.waiting import wait_until

SECONDS = 20
EVERY = 0.1
SEED = 13
STEPS_TO_LAST = 5
"""Steps from a backend's leave of the route to the deletion of its Service, as pods drain before they end."""
LONGEST = 5_000.0
"""Milliseconds of a call."""
ARRIVAL = 5.0
"""Seconds until a new route has reached every client; printed are the real ones."""
ZONES = ("a", "b")
JAVA_HANGS = (
    "n/a with outlierDetection: when an endpoint goes, grpc-java may lose a connection and leave its calls without an end "
    "(a NullPointerException in OutlierDetectionLoadBalancer)"
)


class Changes:
    """Writes random objects that are valid: a route names a backend only while its Service exists."""

    def __init__(
        self,
        folder: Path,
        backends: Sequence[Backend],
        canaries: Mapping[str, Backend],
        *,
        outlier_detection: bool,
    ) -> None:
        self._folder = folder
        self._outlier_detection = outlier_detection
        self._chance = random.Random(SEED)  # noqa: S311 - the same objects in every run
        self._backends = backends
        self._canaries = canaries
        self._step = 0
        self._usable: set[str] = set()
        self._leaving: dict[str, int] = {}
        self.set_endpoints()
        self.set_route()

    def make_one(self) -> None:
        """Makes one change, and deletes the Services whose time has come."""
        self._step += 1
        for name in [name for name, step in self._leaving.items() if step <= self._step]:
            del self._leaving[name]
            (self._folder / f"{name}.yaml").unlink()
        changes = (
            self.set_route,
            self.set_policy,
            self.set_endpoints,
            self._add_backend,
            self._remove_backend,
        )
        self._chance.choices(changes, (4, 2, 2, 1, 1))[0]()

    def set_route(self) -> None:
        """Sends random shares to random backends, by random rules; or deletes the route."""
        if not self._usable and self._chance.random() < 0.2:
            (self._folder / "route.yaml").unlink(missing_ok=True)
            return
        rules = [
            "matches: [{headers: [{name: x-client, value: Go}, {name: x-client, type: RegularExpression, value: G.}]}]",
            "matches: [{headers: [{name: x-client, type: RegularExpression, value: Ja.a|Node}]}]",
            "matches: [{method: {service: greeter.v1.Greeter}}]",
        ]
        chosen = [rule for rule in rules if self._chance.random() < 0.4]
        lines = [f"- {rule}\n  {self._backend_refs()}" for rule in chosen]
        self._write("route", route("\n".join([*lines, f"- {self._backend_refs()}"])))

    def _backend_refs(self) -> str:
        others = [name for name in sorted(self._usable) if self._chance.random() < 0.7]
        refs = [
            f"{{name: {name}, port: 50051, weight: {self._chance.randint(1, 100)}}}"
            for name in (SERVICE, *others)
        ]
        return f"backendRefs: [{', '.join(refs)}]"

    def set_policy(self) -> None:
        """Gives a Service another policy, which makes no call fail; or none."""
        name = self._chance.choice((SERVICE, *self._canaries))
        if spec := harmless_spec(self._chance, outlier_detection=self._outlier_detection):
            self._write(f"policy-{name}", policy(spec, name=name))
        else:
            (self._folder / f"policy-{name}.yaml").unlink(missing_ok=True)

    def set_endpoints(self) -> None:
        """Scales the Service, and gives it other hints for zones, or none."""
        chosen = self._chance.sample(self._backends, self._chance.randint(2, len(self._backends)))
        hinted = self._chance.random() < 0.5
        slices = []
        for backend in chosen:
            zone = self._chance.choice(ZONES)
            hints = {"forZones": [{"name": zone}]} if hinted else None
            slices.append(endpoint(SERVICE, backend, zone=zone, hints=hints))
        self._write(SERVICE, objects.service(SERVICE), *slices)

    def _add_backend(self) -> None:
        absent = sorted(self._canaries.keys() - self._usable - self._leaving.keys())
        if absent:
            name = self._chance.choice(absent)
            self._write(name, *service(name, [self._canaries[name]]))
            self._usable.add(name)

    def _remove_backend(self) -> None:
        if self._usable:
            name = self._chance.choice(sorted(self._usable))
            self._usable.remove(name)
            self.set_route()
            self._leaving[name] = self._step + STEPS_TO_LAST

    def _write(self, name: str, *found: Object) -> None:
        objects.write(self._folder / f"{name}.yaml", *found)


@pytest.fixture
def greeters() -> list[Greeter]:
    """None: the backends of these scenarios are told what to do."""
    return []


@pytest.mark.parametrize("outlier_detection", [False, True], ids=["all", "outlier-detection"])
def test_changes_under_load(mesh: Mesh, note: Note, *, outlier_detection: bool) -> None:
    """10 changes a second for 20 s under load: calls, of them failed, the longest; a new route reaches a warm client after"""
    languages = [each for each in LANGUAGES if not (outlier_detection and each.name == "Java")]
    missing = [language.missing for language in languages if language.missing]
    if missing:
        pytest.skip(f"not run: {', '.join(missing)}")
    with ExitStack() as stack:
        *backends, probe = [stack.enter_context(Backend(f"backend-{number}")) for number in range(1, 6)]
        canaries = {name: stack.enter_context(Backend(name)) for name in ("blue", "green", "red")}
        objects.write(mesh.folder / "probe.yaml", *service("probe", [probe]))
        changes = Changes(mesh.folder, backends, canaries, outlier_detection=outlier_detection)
        wait_until("the objects to be known", lambda: SERVICE in mesh.server.get("/debug/services")[1])
        clients = {}
        for number, language in enumerate(languages):
            bootstrap = mesh.bootstrap(language.name, zone=ZONES[number % 2])
            environment = running.environment(GRPC_XDS_BOOTSTRAP_CONFIG=bootstrap)
            client = stack.enter_context(Program(build(language), environment))
            client.open("a", TARGET)
            assert client.call("a", 10).failures == []
            clients[language.name] = client
        for name, client in clients.items():
            client.start_load("a", parallelism=2, interval=0.02, metadata={"x-client": name})

        due = time.monotonic()
        for _ in range(round(SECONDS / EVERY)):
            changes.make_one()
            due += EVERY
            time.sleep(max(0.0, due - time.monotonic()))

        objects.write(mesh.folder / "route.yaml", route("- backendRefs: [{name: probe, port: 50051}]"))
        written = time.monotonic()
        arrived: dict[str, float] = {}

        def look() -> bool:
            for attempt in probe.take():
                arrived.setdefault(attempt.metadata["x-client"], attempt.time - written)
            return arrived.keys() == clients.keys()

        wait_until("the new route to reach every client", look)
        results = {name: client.stop_load("a") for name, client in clients.items()}
    variant = "with outlierDetection: " if outlier_detection else ""
    if outlier_detection:
        note(JAVA_HANGS, "Java")
    for name, result in results.items():
        calls, failed = sum(result.hosts.values()) + len(result.failures), len(result.failures)
        note(
            f"{variant}{calls:,}, {failed} failed, {result.slowest:.0f} ms; {1000 * arrived[name]:.0f} ms",
            name,
        )
    print({name: (sum(result.hosts.values()), result.slowest) for name, result in results.items()}, arrived)  # noqa: T201
    assert {name: result.failures[:5] for name, result in results.items() if result.failures} == {}
    assert max(result.slowest for result in results.values()) < LONGEST
    assert max(arrived.values()) < ARRIVAL
