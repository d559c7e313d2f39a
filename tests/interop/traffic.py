"""Backends as Services, a mesh whose objects change as a whole, and what to expect of shares."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from statistics import NormalDist
from typing import Any

from tests.interop.backend import Backend
from tests.interop.mesh import SERVICE, Mesh
from tests.support import objects
from tests.support.objects import Object
from tests.support.traffic import of_route, policy, route
from tests.support.waiting import wait_until

_TAIL = NormalDist().inv_cdf(0.9995)
"""The 99.9 % interval in standard deviations."""


def service(name: str, backends: Iterable[Backend] = (), **spec: Any) -> list[Object]:
    """Returns a Service, with an EndpointSlice for each backend, as each has a port of its own here."""
    return [objects.service(name, **spec), *(endpoint(name, backend) for backend in backends)]


def endpoint(
    owner: str, backend: Backend, *, zone: str = "", node: str = "", hints: Object | None = None
) -> Object:
    """Returns an EndpointSlice of one backend."""
    found = objects.endpoint_slice(
        f"{owner}-{backend.name}", owner, **objects.endpoints("127.0.0.1", port=backend.port)
    )
    where = {"zone": zone, "nodeName": node, "hints": hints}
    found["endpoints"][0] |= {name: value for name, value in where.items() if value}
    return found


def everything(stable: Iterable[Backend], canary: Backend) -> list[Object]:
    """Returns a Service with every feature at once, and a Service for its canary."""
    hints = {"forZones": [{"name": "a"}]}
    ring_hash = "type: RingHash, ringHash: {header: x-user, minimumRingSize: 1024}"
    of_calls_and_backends = f"""
    timeout: 10s
    retry: {{codes: [UNAVAILABLE, INTERNAL], attempts: 2, backoff: 10ms}}
    maxConcurrentRequests: 100
    outlierDetection:
      interval: 1s
      baseEjectionTime: 4s
      maxEjectionTime: 60s
      maxEjectionPercent: 10
      failurePercentage: {{threshold: 85, minimumHosts: 3, requestVolume: 5, enforcementPercent: 100}}
      successRate: {{stdevFactor: 1900, minimumHosts: 3, requestVolume: 5, enforcementPercent: 100}}
    loadBalancing: {{{ring_hash}}}
    fault: {{delay: {{duration: 10ms, percent: 10}}, abort: {{code: UNAVAILABLE, percent: 0}}}}
    """
    return [
        objects.service(SERVICE, trafficDistribution="PreferClose"),
        *(endpoint(SERVICE, backend, zone="a", hints=hints) for backend in stable),
        *service("canary", [canary]),
        route("""
        - name: by-header
          matches: [{headers: [{name: x-stage, value: canary}]}, {method: {method: Other}}]
          backendRefs: [{name: canary, port: 50051}]
        - name: rest
          backendRefs:
          - {name: hello-server, port: 50051, weight: 9}
          - {name: canary, port: 50051, weight: 1}
        """),
        policy(of_calls_and_backends),
        policy("loadBalancing: {type: WeightedRoundRobin}", name="canary"),
        policy("timeout: 0s", name="by-header", target=of_route(SERVICE, "by-header")),
    ]


class Traffic:
    """A mesh whose objects change as a whole."""

    def __init__(self, mesh: Mesh, backends: Sequence[Backend]) -> None:
        self.mesh = mesh
        self.backends = backends
        self._is_known = False

    def apply(self, *found: Object | Sequence[Object]) -> None:
        """Replaces all objects in one change; the first time, waits until xds-server knows them."""
        listed = chain.from_iterable(each if isinstance(each, list) else [each] for each in found)
        objects.write(self.mesh.folder / "traffic.yaml", *listed)
        if not self._is_known:
            wait_until(
                "the objects to be known", lambda: SERVICE in self.mesh.server.get("/debug/services")[1]
            )
            self._is_known = True

    def counts(self) -> list[int]:
        """Returns how many attempts each backend has seen since the last time."""
        return [len(backend.take()) for backend in self.backends]


def counts_by_header(backends: Iterable[Backend], header: str) -> Mapping[str, str]:
    """Returns the backend that saw each value of a header last, since the last time."""
    return {attempt.metadata[header]: backend.name for backend in backends for attempt in backend.take()}


def is_share(count: int, total: int, share: float) -> bool:
    """Returns whether a count is within the binomial 99.9 % interval of a share."""
    return abs(count - total * share) <= _TAIL * math.sqrt(total * share * (1 - share)) + 0.5
