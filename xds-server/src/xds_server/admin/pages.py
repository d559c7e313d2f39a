"""The admin pages: liveness, readiness, metrics, and the state as JSON."""

import json
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from xds_server import metrics
from xds_server.admin.access import guard
from xds_server.admin.probe import AdsProbe
from xds_server.admin.site import Site
from xds_server.admin.views.state import ClientStream, Replica, State
from xds_server.ads.servicer import AdsServicer
from xds_server.ads.session import ResourceStatus
from xds_server.ads.stream import Stream
from xds_server.ads.subscription import MAX_NAME_LENGTH
from xds_server.cache.cache import Cache
from xds_server.explain.explanation import Explanation
from xds_server.explain.why import explain
from xds_server.lrs.loads import Edge, Rate
from xds_server.mesh.problems import Problem
from xds_server.mesh.statuses import Status
from xds_server.model.client import Client
from xds_server.model.service import PortName, Service, ServiceName
from xds_server.model.tables import ENDPOINTS, SERVICES
from xds_server.objects.kinds import GRPC_BACKEND_POLICY, GRPC_ROUTE, Kind
from xds_server.objects.meta import DEFAULT_NAMESPACE
from xds_server.objects.meta import Key as ObjectKey
from xds_server.resources.types import Key, ResourceType

_DEBUG_PAGES = {
    "/debug/services": "what was discovered: each service with its ports and endpoints, and what can't be used",
    "/debug/routes": "each GRPCRoute with what its status has to say, parent by parent",
    "/debug/policies": "each GRPCBackendPolicy with what its status has to say, target by target",
    "/debug/resources": "what clients subscribe to: each resource with its version",
    "/debug/clients": "each stream with its subscriptions, versions and rejections",
    "/debug/explain?name=NAME&namespace=NAMESPACE": "what a client gets for a name, and why; zone and node may be given, too",
}


class Shown(NamedTuple):
    """What the pages show, as it is at each request.

    Attributes:
        cache: The model and the resources.
        servicer: The streams.
        probe: Whether ADS answers.
        age: Seconds since the source last confirmed the state.
        problems: What can't be used of the objects that were read.
        statuses: What is to be said about each route and policy.
        cluster_domain: The suffix of full service names.
        rates: Who calls whom; None if clients do not report it.
        pod: The name and the namespace of this server's pod; empty outside of a cluster.
        hosts: Names by which browsers may reach the server.
    """

    cache: Cache
    servicer: AdsServicer
    probe: AdsProbe
    age: Callable[[], float]
    problems: Callable[[], Iterable[Problem]]
    statuses: Callable[[], Iterable[tuple[Kind, ObjectKey, Status]]]
    cluster_domain: str
    rates: Callable[[], Mapping[Edge, Rate]] | None = None
    pod: ServiceName = ServiceName("", "")
    hosts: tuple[str, ...] = ()

    def look(self, show: Callable[[State], Any]) -> Any:
        """Calls a function with the state, which does not change meanwhile; returns what it returns."""
        # Not under the lock: load reports have one of their own.
        rates = self.rates() if self.rates else {}
        with self.cache.lock:
            return show(
                State(
                    tables=self.cache.tables,
                    streams=[
                        ClientStream(s.number, s.call.peer, s.session)
                        for s in self.servicer.streams
                        if not s.is_probe
                    ],
                    statuses=list(self.statuses()),
                    problems=[
                        *self.problems(),
                        *(
                            Problem(key.type.label, ("", key.name), reason)
                            for key, reason in self.cache.problems()
                        ),
                    ],
                    rates=rates,
                    reports=self.rates is not None,
                    subscribers=lambda port: self.cache.subscribers(Key(ResourceType.CLUSTER, str(port))),
                    age=self.age(),
                    replica=self._replica(),
                )
            )

    def _replica(self) -> Replica:
        """Which server this is. The replicas are the endpoints of the Service of that name in its namespace."""
        service = self.cache.tables[SERVICES].get(ServiceName(self.pod.namespace, "xds-server"))
        endpoints = (
            [self.cache.tables[ENDPOINTS].get(port, ()) for port in service.port_names] if service else []
        )
        return Replica(
            self.pod.name or socket.gethostname(), self.pod.namespace, max(map(len, endpoints), default=0)
        )

    def explain(self, name: str, client: Client) -> Explanation:
        """What a client gets for a name."""
        # Without the lock: the tables change in the event loop alone, where this is called.
        return explain(
            self.cache.tables,
            self.cache.locate(client),
            name,
            cluster_domain=self.cluster_domain,
            statuses=self.statuses(),
            problems=self.problems(),
        )


def application(shown: Shown) -> web.Application:
    """The application to serve."""
    app = web.Application(
        middlewares=[
            guard({*shown.hosts, shown.pod.name, socket.gethostname().lower()}, shown.cluster_domain)
        ]
    )
    Site(shown.look, shown.explain).add_to(app)
    pages = _Pages(shown)
    app.add_routes(
        [
            web.get("/livez", pages.livez),
            web.get("/readyz", pages.readyz),
            web.get("/metrics", pages.metrics),
            web.get("/debug", pages.debug),
            web.get("/debug/", pages.debug),
            web.get("/debug/services", pages.services),
            web.get("/debug/routes", pages.routes),
            web.get("/debug/policies", pages.policies),
            web.get("/debug/resources", pages.resources),
            web.get("/debug/clients", pages.clients),
            web.get("/debug/explain", pages.explain),
        ]
    )
    return app


class _Pages:
    """The handlers."""

    def __init__(self, shown: Shown) -> None:
        self._shown = shown

    async def livez(self, _: web.Request) -> web.Response:
        # That this is answered at all shows that the event loop runs.
        if await self._shown.probe.answers():
            return web.Response(text="ok\n")
        return web.Response(status=503, text="ADS does not answer\n")

    async def readyz(self, request: web.Request) -> web.Response:
        # An old state is still better than none: no client gains by losing its control plane.
        if not self._shown.cache.synced:
            reason = "waiting for the first complete list of services and endpoints"
            return web.Response(status=503, text=f"{reason}\n")
        return await self.livez(request)

    async def metrics(self, _: web.Request) -> web.Response:
        _update_gauges(self._shown)
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def debug(self, _: web.Request) -> web.Response:
        return _json(_DEBUG_PAGES)

    async def services(self, _: web.Request) -> web.Response:
        cache = self._shown.cache
        with cache.lock:
            endpoints = cache.tables[ENDPOINTS]
            found = {
                str(name): _ports(service, endpoints)
                for name, service in sorted(cache.tables[SERVICES].items())
            }
            failed = [
                {"kind": key.type.label, "object": key.name, "reason": reason}
                for key, reason in cache.problems()
            ]
        unusable = [
            {"kind": p.kind, "object": "/".join(p.key), "reason": p.reason} for p in self._shown.problems()
        ]
        return _json({"services": found, "problems": [*unusable, *failed]})

    async def explain(self, request: web.Request) -> web.Response:
        query = request.query
        name = query.get("name", "")
        if not name:
            raise web.HTTPBadRequest(text="name is missing: /debug/explain?name=hello-server.default:50051\n")
        client = Client(
            query.get("namespace") or DEFAULT_NAMESPACE,
            query.get("zone", ""),
            query.get("node", ""),
            pod=query.get("pod", ""),
        )
        if any(len(text) > MAX_NAME_LENGTH for text in (name, *client)):
            raise web.HTTPBadRequest(text=f"a parameter is longer than {MAX_NAME_LENGTH} characters\n")
        return _json(asdict(self._shown.explain(name, client)))

    async def routes(self, _: web.Request) -> web.Response:
        return _json(_stated(self._shown.statuses(), GRPC_ROUTE, "parents"))

    async def policies(self, _: web.Request) -> web.Response:
        return _json(_stated(self._shown.statuses(), GRPC_BACKEND_POLICY, "ancestors"))

    async def resources(self, _: web.Request) -> web.Response:
        cache = self._shown.cache
        with cache.lock:
            found = sorted(cache.resources(), key=lambda item: (item[0].type.label, item[0].name))
        return _json(
            [
                {
                    "type": key.type.label,
                    "name": key.name,
                    **{f"client_{trait}": value for trait, value in traits.items()},
                    "version": resource.version if resource else None,
                    "subscribers": subscribers,
                }
                for key, traits, resource, subscribers in found
            ]
        )

    async def clients(self, _: web.Request) -> web.Response:
        servicer = self._shown.servicer
        with self._shown.cache.lock:
            found = [(s, tuple(s.session.statuses())) for s in servicer.streams if not s.is_probe]
        return _json([_client(stream, statuses) for stream, statuses in found])


def _stated(
    statuses: Iterable[tuple[Kind, ObjectKey, Status]], kind: Kind, field: str
) -> list[Mapping[str, Any]]:
    """The statuses of one kind; `field` is what the kind calls what it refers to."""
    return [
        {
            "object": "/".join(key),
            "generation": status.generation,
            field: [
                {"ref": entry.ref, "conditions": [condition._asdict() for condition in entry.conditions]}
                for entry in status.entries
            ],
        }
        for found, key, status in sorted(statuses, key=lambda each: each[1])
        if found is kind
    ]


def _update_gauges(shown: Shown) -> None:
    """Sets the metrics that are not counted as things happen."""
    cache = shown.cache
    metrics.age_seconds.set(shown.age())
    with cache.lock:
        metrics.synced.set(cache.synced)
        metrics.services.set(len(cache.tables[SERVICES]))
        subscribed = Counter(key.type for key, *_ in cache.resources())
        found = Counter([p.kind for p in shown.problems()] + [key.type.label for key, _ in cache.problems()])
    for type_ in ResourceType:
        metrics.subscriptions.labels(type_.label).set(subscribed[type_])
    metrics.problems.clear()
    for name, number in found.items():
        metrics.problems.labels(name).set(number)
    conditions = Counter(
        (kind.name, condition.type, str(condition.status), condition.reason)
        for kind, _, status in shown.statuses()
        for entry in status.entries
        for condition in entry.conditions
    )
    metrics.conditions.clear()
    for labels, number in conditions.items():
        metrics.conditions.labels(*labels).set(number)


def _client(stream: Stream, statuses: Iterable[ResourceStatus]) -> Mapping[str, Any]:
    node, client = stream.session.node, stream.session.client
    resources: dict[str, list[Mapping[str, Any]]] = {}
    for status in statuses:
        resources.setdefault(status.type.label, []).append(
            {
                "name": status.name,
                "status": status.status.value,
                **({"version": status.resource.version} if status.resource else {}),
                **({"rejected_because": status.rejection.message} if status.rejection else {}),
            }
        )
    return {
        "stream": stream.number,
        "peer": stream.call.peer,
        "node": node.id,
        "namespace": client.namespace,
        **({"zone": client.zone} if client.zone else {}),
        **({"node_name": client.node} if client.node else {}),
        "client": node.user_agent,
        "resources": resources,
    }


def _ports(service: Service, endpoints: Mapping[PortName, Any]) -> list[Mapping[str, Any]]:
    return [
        {
            "name": port.name,
            "number": port.number,
            "endpoints": [
                {"zone": endpoint.zone, "addresses": [str(address) for address in endpoint.addresses]}
                for endpoint in endpoints.get(name, ())
            ],
        }
        for name, port in zip(service.port_names, service.ports, strict=True)
    ]


def _json(value: object) -> web.Response:
    return web.Response(text=json.dumps(value, indent=2) + "\n", content_type="application/json")
