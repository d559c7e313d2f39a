"""An xds-server inside a test process: for tests of services that use ``xds:///``, without a cluster and without files.

Objects go through the same decoding and the same store as those of a cluster. ``pytest_plugin`` makes a fixture of it.
"""

import asyncio
import ipaddress
import json
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, Self, TypeVar

import yaml

from servicekit import addresses, listening
from xds_server.ads.limits import Limits
from xds_server.ads.servicer import AdsServicer
from xds_server.app import make_server
from xds_server.bootstrap import bootstrap
from xds_server.cache.cache import Cache
from xds_server.errors import MalformedObjectError, RefusedError
from xds_server.files import parsing
from xds_server.mesh.services import SERVICE_NAME_LABEL
from xds_server.mesh.store import Store
from xds_server.model.service import ServiceName
from xds_server.objects import documents, meta
from xds_server.objects.documents import Identity
from xds_server.objects.kinds import ENDPOINT_SLICE, KINDS, SERVICE, collections
from xds_server.resources.builders import builder
from xds_server.resources.names import parse_canonical
from xds_server.rpc import choice

CLUSTER_DOMAIN = "cluster.local"
MAX_CONNECTION_AGE = 3600.0
"""Seconds."""
BAD = {"Accepted": False, "ResolvedRefs": False, "PartiallyInvalid": True}
"""Conditions that say that something is wrong, each with the status that says so."""

_KINDS = {(kind.api_version, kind.name): kind for kind in KINDS}
_T = TypeVar("_T")


class Mesh:
    """A running control plane and the objects that it serves. Use it as a context manager, or call ``close``.

    Every method returns once the change is on its way to the clients; a client has it some milliseconds later.
    """

    def __init__(self) -> None:
        self._objects: dict[Identity, meta.Object] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="xds mesh", daemon=True)
        self._thread.start()
        limits = Limits()
        self._transport = choice.choose("auto", calls=limits.streams)
        self._collections = collections(KINDS)
        self._cache = Cache(partial(builder, cluster_domain=CLUSTER_DOMAIN, load_reports=False))
        self._store = Store(self._collections, self._cache.publish)
        self._server = make_server(
            self._transport, max_connection_age=MAX_CONNECTION_AGE, max_streams=limits.streams
        )
        self._servicer = self._run(self._make_servicer, limits)
        self._server.add_generic_rpc_handlers((self._servicer.handler(),))
        self.address = listening.bind_loopback(self._server)
        self._publish()
        self._server.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def bootstrap(self, *, namespace: str = "default", zone: str = "", node_id: str = "test") -> str:
        """The bootstrap of a client, for ``GRPC_XDS_BOOTSTRAP_CONFIG``.

        Args:
            namespace: The client's.
            zone: The client's, for Services with a ``trafficDistribution``.
            node_id: Names the client to people.
        """
        made = bootstrap(
            server=self.address, node_id=node_id, namespace=namespace, pod="", zone=zone, node=""
        )
        # A client without a Service that is gone fails at once, as a test expects.
        made["xds_servers"][0]["server_features"] = ["xds_v3"]
        return json.dumps(made)

    def serve(self, endpoints: Mapping[str, Iterable[str]]) -> None:
        """Serves Services, and sets where the servers of each are; other Services stay as they are.

        Args:
            endpoints: By name (``SERVICE.NAMESPACE:PORT``), the addresses (``IP:PORT``) of the servers, possibly none.
                A Service that is named has the ports that are named here, and no other.

        Raises:
            ValueError: A name or an address has another form.
        """
        ports: dict[ServiceName, dict[int, list[str]]] = {}
        for name, found in endpoints.items():
            port = parse_canonical(name)
            if port is None:
                raise ValueError(f"{name!r} must be SERVICE.NAMESPACE:PORT, like hello.default:50051")
            ports.setdefault(port.service, {})[port.number] = list(found)
        made = [item for service, numbers in ports.items() for item in _service(service, numbers)]
        kept = {key: item for key, item in self._objects.items() if not _belongs_to(key, item, ports)}
        self._objects = kept | _decode(made)
        self._publish()

    def apply(self, text: str) -> None:
        """Adds or replaces objects, as ``kubectl apply`` does.

        Args:
            text: YAML, of one or several documents: GRPCRoutes, GRPCBackendPolicies, Services, EndpointSlices, Nodes.

        Raises:
            MalformedObjectError: It does not parse, or holds none of these.
            RefusedError: The text of the error has the conditions of a route or policy that is not used as it is. It
                is applied nevertheless, as on a cluster.
        """
        try:
            parsed = parsing.parse_yaml(text.encode(), _KINDS)
        except yaml.YAMLError as error:
            raise MalformedObjectError(f"this is not YAML: {error}") from error
        if not parsed:
            raise MalformedObjectError("the text holds no object of a kind that xds-server reads")
        found = _decode(parsed)
        self._objects = self._objects | found
        self._publish()
        if problems := self._run(self._refusals, {(key.kind.name, key.key) for key in found}):
            raise RefusedError("\n".join(problems))

    def clear(self) -> None:
        """Removes every object."""
        self._objects = {}
        self._publish()

    def close(self) -> None:
        """Ends all streams and stops."""
        self._servicer.close()
        self._server.stop(1).wait()
        self._transport.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _publish(self) -> None:
        self._run(self._replace)

    async def _replace(self) -> None:
        self._store.replace(
            {
                collection: [item for key, item in self._objects.items() if key.kind is collection.kind]
                for collection in self._collections
            }
        )

    async def _make_servicer(self, limits: Limits) -> AdsServicer:
        return AdsServicer(self._cache, self._transport, limits=limits)

    async def _refusals(self, applied: set[tuple[str, meta.Key]]) -> list[str]:
        """What the conditions of objects and their other problems say, a line each."""
        conditions = [
            f"{kind.name} {'/'.join(key)}: {condition.message} ({condition.type}={condition.status}, {condition.reason})"
            for kind, key, status in self._store.statuses
            for entry in status.entries
            for condition in entry.conditions
            if (kind.name, key) in applied and BAD.get(condition.type) is condition.status
        ]
        problems = [
            f"{problem.kind} {'/'.join(problem.key)}: {problem.reason}"
            for problem in self._store.problems
            if (problem.kind, problem.key) in applied
        ]
        return [*conditions, *problems]

    def _run(self, function: Callable[..., Awaitable[_T]], *arguments: Any) -> _T:
        """Runs a coroutine function in the thread of the mesh; returns what it returns."""

        async def call() -> _T:
            return await function(*arguments)

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result()


def _service(service: ServiceName, ports: Mapping[int, list[str]]) -> Iterable[dict[str, Any]]:
    """A Service, and an EndpointSlice for each of its servers: a port belongs to the slice."""
    metadata = {"name": service.name, "namespace": service.namespace}
    listed = [{"name": f"port-{number}", "port": number, "appProtocol": "grpc"} for number in ports]
    yield {**_header(SERVICE.api_version, SERVICE.name), "metadata": metadata, "spec": {"ports": listed}}
    for number, found in ports.items():
        for index, text in enumerate(found):
            host, port = addresses.parse(text, min_port=1)
            yield {
                **_header(ENDPOINT_SLICE.api_version, ENDPOINT_SLICE.name),
                "metadata": {
                    "name": f"{service.name}-{number}-{index}",
                    "namespace": service.namespace,
                    "labels": {SERVICE_NAME_LABEL: service.name},
                },
                "addressType": f"IPv{ipaddress.ip_address(host).version}",
                "endpoints": [{"addresses": [host], "conditions": {"ready": True}}],
                "ports": [{"name": f"port-{number}", "port": port, "protocol": "TCP"}],
            }


def _header(api_version: str, kind: str) -> dict[str, str]:
    return {"apiVersion": api_version, "kind": kind}


def _belongs_to(identity: Identity, item: meta.Object, services: Iterable[ServiceName]) -> bool:
    """Whether an object is one of these Services, or an EndpointSlice of one."""
    if identity.kind not in (SERVICE, ENDPOINT_SLICE):
        return False
    namespace, name = identity.key
    if identity.kind is ENDPOINT_SLICE:
        name = (item.metadata.labels or {}).get(SERVICE_NAME_LABEL) or ""
    return ServiceName(namespace, name) in services


def _decode(parsed: Iterable[dict[str, Any]]) -> dict[Identity, meta.Object]:
    return {documents.identity(each, _KINDS): documents.convert(each, _KINDS) for each in parsed}
