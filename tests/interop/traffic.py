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
