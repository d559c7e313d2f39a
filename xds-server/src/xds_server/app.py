"""Composes the parts, starts them, and stops them in order."""

import asyncio
import resource
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import grpc
import structlog
from aiohttp import web
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection
from prometheus_client import REGISTRY

from servicekit import listening
from servicekit.health import add_with_threads as add_health
from servicekit.lifecycle import Shutdown, run_until_shutdown
from xds_server import metrics
from xds_server.admin import bad_requests, pages
from xds_server.admin.pages import Shown
from xds_server.admin.probe import AdsProbe
from xds_server.admission import Admission
from xds_server.ads.limits import Limits
from xds_server.ads.node import UNKNOWN
from xds_server.ads.servicer import SERVICE, STREAM_METHOD, AdsServicer
from xds_server.cache.cache import Cache
from xds_server.csds.servicer import SERVICE as CSDS
from xds_server.csds.servicer import StatusServicer
from xds_server.feedback import Feedback
from xds_server.files import FilesSource
from xds_server.kubernetes.source import KubernetesSource
from xds_server.lrs.collector import LoadCollector
from xds_server.lrs.servicer import LoadServicer
from xds_server.mesh.problems import Problem
from xds_server.mesh.store import Store
from xds_server.model.service import PortName, ServiceName
from xds_server.model.tables import NODE_ZONES, SERVICES, Changes
from xds_server.objects.kinds import KINDS, collections
from xds_server.resources.builders import builder
from xds_server.resources.types import Key, ResourceType
from xds_server.rpc import choice
from xds_server.rpc.call import Transport
from xds_server.settings import Settings
from xds_server.source import Source

if TYPE_CHECKING:
    from xds_server.certificates import Certificates

log = structlog.get_logger()

MAX_REQUEST_BYTES = 1024 * 1024
"""Enough for as many names as one type may have. A request that is never completed holds that much."""
MAX_STREAMS_OF_CONNECTION = 1_000
"""A gRPC client opens one for each of its targets."""
DEBUG_THREADS = 8
"""For CSDS and reflection, which take one for as long as a call lasts; calls beyond that are refused."""
OTHER_THREADS = 4
"""For all methods that clients may call but ADS: checks of health, and delta xDS, which is refused."""
HEALTH_SECONDS = 5.0
"""How often gRPC health is brought in line with whether ADS answers."""
CERTIFICATES_SECONDS = 10.0
"""How often to look for renewed certificates, beside at every connection."""
STOP_GRACE = 1.0
"""Seconds that calls have to end after streams were closed."""
AGE_GRACE = 1.0
"""Seconds that calls may go on after their connection has reached its age: a stream does, all others are short."""


async def serve(settings: Settings, shutdown: Shutdown) -> None:
    """Serves until a shutdown is requested.

    Raises:
        ConfigurationError: There is nothing to discover from.
        AddressError: One of the addresses can't be listened on.
    """
    raise_file_limit()
    limits = Limits()
    # A client that reports has a stream of each kind.
    calls = limits.streams * (2 if settings.load_reports else 1)
    transport = await asyncio.to_thread(choice.choose, settings.rpc_transport, calls=calls)
    metrics.transport.labels(transport.name).set(1)
    cache = Cache(
        partial(builder, cluster_domain=settings.cluster_domain, load_reports=settings.load_reports)
    )
    published = asyncio.Event()

    def publish(changes: Changes) -> None:
        cache.publish(changes)
        nodes = {entry.key for entry in changes if entry.table is NODE_ZONES}
        if nodes:
            servicer.relocate(nodes)
        published.set()

    store, source = discovery(settings, publish)

    probe_node = f"probe-{secrets.token_hex(16)}"
    admission = Admission(settings.trust_domain, settings.allowed_clients)
    servicer = AdsServicer(cache, transport, limits=limits, probe_node=probe_node, admission=admission)
    if isinstance(source, KubernetesSource):
        feedback = Feedback(
            source.statuses, source.events, cache, store, cluster_domain=settings.cluster_domain
        )
        store.report_to(feedback)
        servicer.report_to(feedback.rejected)
    server = make_server(transport, max_connection_age=settings.max_connection_age, max_streams=calls)
    server.add_generic_rpc_handlers((servicer.handler(),))
    loads = take_load_reports(server, settings, transport, cache, admission)
    health_servicer = add_health(server, [SERVICE])
    certificates = bind(server, settings)
    probe = AdsProbe(
        listening.bind_loopback(server), STREAM_METHOD, node=probe_node, find_name=lambda: first_name(cache)
    )
    debug_server = make_debug_server(StatusServicer(servicer, cache))
    if settings.debug_listen:
        listening.bind(debug_server, settings.debug_listen)

    def problems() -> list[Problem]:
        return [*store.problems, *(certificates.problems if certificates else ())]

    shown = Shown(
        cache,
        servicer,
        probe,
        source.age,
        problems,
        lambda: store.statuses,
        settings.cluster_domain,
        rates=loads.rates if loads else None,
        pod=ServiceName(settings.pod_namespace, settings.pod_name),
        hosts=settings.admin_hosts,
    )
    admin = await serve_pages(shown, settings.admin_listen)
    server.start()
    debug_server.start()
    log.info(
        "listening",
        listen=settings.listen or None,
        tls_listen=settings.tls_listen if certificates else None,
        admin_listen=settings.admin_listen,
        debug_listen=settings.debug_listen,
        transport=transport.name,
    )

    try:
        await run_until_shutdown(
            shutdown,
            {
                "discovery": source.run(),
                "health": keep_health(published, cache, probe, health_servicer),
                "stream deadlines": servicer.close_stuck_streams(),
                **({"certificates": follow(certificates)} if certificates else {}),
            },
        )
    finally:
        # Before the streams end: a probe that fails during a shutdown would only alarm people.
        await admin.cleanup()
        await probe.close()
        health_servicer.enter_graceful_shutdown()
        health_servicer.end_watches()
        servicer.close()
        if loads:
            loads.close()
        await stop(server, debug_server)
        transport.close()


def raise_file_limit() -> None:
    """Lets the process open as many files as it may: each connection is one, and the soft limit is for programs of old."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def stop(*servers: grpc.Server) -> None:
    """Stops servers whose streams were ended."""
    stopped = [server.stop(STOP_GRACE) for server in servers]
    for event in stopped:
        if not await asyncio.to_thread(event.wait, 2 * STOP_GRACE):
            log.error("gRPC server does not stop; the program ends without it")


async def keep_health(
    published: asyncio.Event, cache: Cache, probe: AdsProbe, servicer: health.HealthServicer
) -> None:
    """Sets gRPC health to whether clients are answered, from the first publication on."""
    await published.wait()
    log.info("ready", services=len(cache.tables[SERVICES]))
    while True:
        serving = await probe.answers()
        status = (
            health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        for name in ("", SERVICE):
            servicer.set(name, status)
        await asyncio.sleep(HEALTH_SECONDS)


async def serve_pages(shown: Shown, address: str) -> web.AppRunner:
    """Starts to serve the admin pages."""
    bad_requests.limit_asyncio()
    admin = web.AppRunner(pages.application(shown), access_log=None, logger=bad_requests.logger())
    await admin.setup()
    await web.SockSite(admin, listening.open_socket(address)).start()
    return admin


def bind(server: grpc.Server, settings: Settings) -> "Certificates | None":
    """Makes the server listen for clients; returns its certificates, if it has any.

    Raises:
        AddressError: An address can't be listened on.
        ConfigurationError: The certificates can't be used.
    """
    if settings.listen:
        listening.bind(server, settings.listen)
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    # What reads certificates takes 10 MiB, which a server without TLS does not pay for.
    from xds_server.certificates import Certificates  # noqa: PLC0415

    certificates = Certificates(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)
    metrics.certificate_expiry.set_function(certificates.expiry)
    listening.bind(server, settings.tls_listen, certificates.credentials())
    return certificates


async def follow(certificates: "Certificates") -> None:
    """Reads renewed certificates even if nobody connects, so that the log tells about broken ones in time."""
    while True:
        await asyncio.sleep(CERTIFICATES_SECONDS)
        await asyncio.to_thread(certificates.refresh)


def take_load_reports(
    server: grpc.Server, settings: Settings, transport: Transport, cache: Cache, admission: Admission
) -> LoadServicer | None:
    """Makes the server take load reports, unless they are off."""
    if not settings.load_reports:
        return None
    loads = LoadServicer(
        transport, settings.load_report_interval, partial(has_port, cache), admission=admission
    )
    server.add_generic_rpc_handlers((loads.handler(),))
    REGISTRY.register(LoadCollector(loads.totals))
    return loads


def discovery(settings: Settings, publish: Callable[[Changes], None]) -> tuple[Store, Source]:
    """The store of objects, and the source that the settings ask for, which feeds it."""
    found = collections(KINDS, settings.namespaces)
    store = Store(found, publish)
    if settings.discovery == "files" and settings.discovery_dir is not None:
        return store, FilesSource(
            store,
            found,
            directory=settings.discovery_dir,
            poll_interval=settings.poll_interval,
            watch=settings.watch,
        )
    return store, KubernetesSource(store, found, poll_interval=settings.poll_interval, watch=settings.watch)


def make_server(transport: Transport, *, max_connection_age: float, max_streams: int) -> grpc.Server:
    """The server for clients, without its services.

    Args:
        transport: Serves the streams.
        max_connection_age: In seconds.
        max_streams: The bound on streams.
    """
    return grpc.server(
        ThreadPoolExecutor(transport.server_threads + OTHER_THREADS, thread_name_prefix="serves calls"),
        options=server_options(max_connection_age, max_streams),
    )


def server_options(max_connection_age: float, max_streams: int) -> Sequence[tuple[str, int]]:
    """The options of the server for clients; the age is in seconds."""
    return (
        *listening.SERVER_OPTIONS,
        # Clients keep one stream open for hours. They ping every five minutes by default, some more often: none
        # is disconnected for that. https://github.com/grpc/proposal/blob/master/A8-client-side-keepalive.md
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # A client that vanished without closing its connection is noticed within a minute.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        # gRPC adds a tenth of jitter by itself: https://github.com/grpc/proposal/blob/master/A9-server-side-conn-mgt.md
        ("grpc.max_connection_age_ms", round(max_connection_age * 1000)),
        ("grpc.max_connection_age_grace_ms", round(AGE_GRACE * 1000)),
        ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
        # One without a stream is of no use: a client opens it again.
        ("grpc.max_connection_idle_ms", 120_000),
        # A connection that does not complete its TLS handshake is closed.
        ("grpc.server_handshake_timeout_ms", 10_000),
        ("grpc.max_concurrent_streams", MAX_STREAMS_OF_CONNECTION),
        # All clients may connect at once. By default C-core cancels calls at random as soon as a thousand wait.
        ("grpc.server.max_pending_requests", max_streams),
        ("grpc.server.max_pending_requests_hard_limit", max_streams),
    )


def make_debug_server(status_servicer: StatusServicer) -> grpc.Server:
    """The server for operators: CSDS and reflection."""
    server = grpc.server(
        ThreadPoolExecutor(DEBUG_THREADS, thread_name_prefix="serves operators"),
        options=listening.SERVER_OPTIONS,
        maximum_concurrent_rpcs=DEBUG_THREADS,
    )
    server.add_generic_rpc_handlers((status_servicer.handler(),))
    reflection.enable_server_reflection((SERVICE, CSDS, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    return server


def has_port(cache: Cache, port: PortName) -> bool:
    """Whether a port of a service exists. May be called in any thread."""
    service = cache.tables[SERVICES].get(port.service)
    return service is not None and port in service.port_names


def first_name(cache: Cache) -> str | None:
    """The name of a Cluster that exists; None if there is none, or clients may not be answered yet."""
    with cache.lock:
        names = cache.canonical_names() if cache.synced else iter(())
        return next(
            (name for name in names if cache.get(Key(ResourceType.CLUSTER, name), UNKNOWN.client)), None
        )
