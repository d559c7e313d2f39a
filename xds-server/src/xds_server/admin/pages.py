"""The admin pages: liveness, readiness, metrics, and what the server knows and says, as JSON."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from xds_server import metrics
from xds_server.admin.liveness import Liveness
from xds_server.ads.servicer import AdsServicer, Stream
from xds_server.ads.session import Held
from xds_server.cache import Cache
from xds_server.discovery.source import Source
from xds_server.model import Service
from xds_server.resources.types import ResourceType

_DEBUG_PAGES = {
    "/debug/services": "what was discovered: each service with its ports and endpoints, and what could not be used",
    "/debug/resources": "what is asked for: each resource with its version",
    "/debug/clients": "who asks: each stream with its subscriptions, versions and the last refusal",
}


def application(source: Source, cache: Cache, servicer: AdsServicer, liveness: Liveness) -> web.Application:
    """The application to serve; it looks at the parts as they are at each request."""

    async def livez(_: web.Request) -> web.Response:
        # That this is answered at all says that the event loop turns.
        if await liveness.answers():
            return web.Response(text="ok\n")
        return web.Response(status=503, text="gRPC does not answer\n")

    async def readyz(_: web.Request) -> web.Response:
        # A state that has grown old is still better than none: no client gains by losing its control plane.
        if cache.synced:
            return web.Response(text="ok\n")
        return web.Response(
            status=503, text="waiting for the first complete list of services and endpoints\n"
        )

    async def show_metrics(_: web.Request) -> web.Response:
        _look(source, cache)
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def debug(_: web.Request) -> web.Response:
        return _json(_DEBUG_PAGES)

    async def services(_: web.Request) -> web.Response:
        found = sorted(source.registry.services.items())
        problems = [
            {"kind": p.kind, "object": "/".join(p.key), "reason": p.reason} for p in source.registry.problems
        ]
        return _json(
            {"services": {str(name): _ports(service) for name, service in found}, "problems": problems}
        )

    async def resources(_: web.Request) -> web.Response:
        with cache.lock:
            found = sorted(cache.resources().items(), key=lambda item: (item[0].type.label, item[0].name))
        return _json(
            [
                {
                    "type": key.type.label,
                    "name": key.name,
                    **({"client_namespace": key.namespace} if key.namespace else {}),
                    "version": resource.version if resource else None,
                }
                for key, resource in found
            ]
        )

    async def clients(_: web.Request) -> web.Response:
        with cache.lock:
            found = [(stream, tuple(stream.session.held())) for stream in servicer.streams]
        return _json([_client(stream, held) for stream, held in found])

    app = web.Application()
    app.add_routes(
        [
            web.get("/livez", livez),
            web.get("/readyz", readyz),
            web.get("/metrics", show_metrics),
            web.get("/debug", debug),
            web.get("/debug/", debug),
            web.get("/debug/services", services),
            web.get("/debug/resources", resources),
            web.get("/debug/clients", clients),
        ]
    )
    return app


def _look(source: Source, cache: Cache) -> None:
    """Takes what is not counted as it happens."""
    metrics.synced.set(cache.synced)
    metrics.age_seconds.set(source.age())
    with cache.lock:
        asked_for = Counter(key.type for key in cache.resources())
    for kind in ResourceType:
        metrics.subscriptions.labels(kind.label).set(asked_for[kind])


def _client(stream: Stream, found: Iterable[Held]) -> Mapping[str, Any]:
    node = stream.session.node
    resources: dict[str, list[Mapping[str, Any]]] = {}
    for held in found:
        resources.setdefault(held.type.label, []).append(
            {
                "name": held.name,
                "status": held.status.value,
                **({"version": held.resource.version} if held.resource else {}),
                **({"refused_because": held.rejection.message} if held.rejection else {}),
            }
        )
    return {
        "stream": stream.number,
        "peer": stream.call.peer,
        "node": node.id,
        "namespace": stream.session.namespace,
        "client": f"{node.user_agent_name} {node.user_agent_version}".strip(),
        "resources": resources,
    }


def _ports(service: Service) -> list[Mapping[str, Any]]:
    return [
        {
            "name": port.name,
            "number": port.number,
            "endpoints": [
                {"zone": endpoint.zone, "addresses": [str(address) for address in endpoint.addresses]}
                for endpoint in port.endpoints
            ],
        }
        for port in service.ports
    ]


def _json(value: object) -> web.Response:
    return web.Response(text=json.dumps(value, indent=2) + "\n", content_type="application/json")
