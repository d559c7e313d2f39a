"""Puts the parts together, starts them, and stops them in order."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc
import structlog
from aiohttp import web
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection

from servicekit import listening
from servicekit.health import add_with_threads as add_health
from servicekit.lifecycle import Stop
from xds_server.admin import pages
from xds_server.admin.liveness import Liveness
from xds_server.ads import status
from xds_server.ads.servicer import MAX_STREAMS, SERVICE, AdsServicer
from xds_server.cache import Cache
from xds_server.discovery.files import FilesSource
from xds_server.discovery.kubernetes import KubernetesSource
from xds_server.discovery.registry import Changes
from xds_server.discovery.source import Source
from xds_server.settings import Settings

log = structlog.get_logger()

MAX_REQUEST_BYTES = 4 * 1024 * 1024
THREADS = 64
"""For CSDS and reflection, which take one for as long as a call lasts; ADS and health don't wait for them."""
STOP_GRACE = 1.0
"""Seconds that calls have to end after the streams were told to go."""
AGE_GRACE = 1.0
"""Seconds that calls may go on after their connection has reached its age: a stream does, all others are short."""


async def serve(settings: Settings, stop: Stop) -> None:
    """Serves until it is told to stop.

    Raises:
        ConfigurationError: There is nothing to discover from.
        AddressError: One of the addresses can't be listened on.
    """
    cache = Cache(settings.cluster_domain)
    server = grpc.server(
        ThreadPoolExecutor(THREADS, thread_name_prefix="serves calls"),
        options=server_options(settings.max_connection_age),
    )
    servicer = AdsServicer(cache)
    server.add_generic_rpc_handlers((servicer.handler(), status.StatusServicer(servicer, cache).handler()))
    reflection.enable_server_reflection(
        (SERVICE, status.SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server
    )
    health_servicer = add_health(server, [SERVICE])
    synced = asyncio.Event()

    def publish(changes: Changes) -> None:
        cache.publish(changes)
        synced.set()

    source = make_source(settings, publish)
    liveness = Liveness(listening.reach(settings.listen, listening.bind(server, settings.listen)))
    admin = web.AppRunner(pages.application(source, cache, servicer, liveness), access_log=None)
    await admin.setup()
    await web.SockSite(admin, listening.open_socket(settings.admin_listen)).start()
    server.start()
    log.info("listening", listen=settings.listen, admin_listen=settings.admin_listen)

    async def become_ready() -> None:
        await synced.wait()
        for name in ("", SERVICE):
            health_servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
        log.info("ready", services=len(source.registry.services))

    discovering = asyncio.create_task(source.run(), name="discovery")
    becoming_ready = asyncio.create_task(become_ready(), name="readiness")
    watching_writes = asyncio.create_task(servicer.watch_writes(), name="write deadlines")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        # None of these ends by itself: if one does, so must the program, loudly.
        endless = (discovering, watching_writes)
        await asyncio.wait((*endless, stopping), return_when=asyncio.FIRST_COMPLETED)
        for task in endless:
            if task.done():
                task.result()
    finally:
        health_servicer.enter_graceful_shutdown()
        servicer.close()
        stopped = server.stop(STOP_GRACE)
        if not await asyncio.to_thread(stopped.wait, 2 * STOP_GRACE):
            log.error("gRPC does not stop; the program ends without it")
        await liveness.close()
        await admin.cleanup()
        tasks = (discovering, becoming_ready, watching_writes, stopping)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def server_options(max_connection_age: float) -> Sequence[tuple[str, int]]:
    """What the gRPC server must know before it starts; the age is in seconds."""
    return (
        *listening.SERVER_OPTIONS,
        # Clients keep one stream open for hours. They ping every five minutes by default, some set less: none
        # is sent away for that. https://github.com/grpc/proposal/blob/master/A8-client-side-keepalive.md
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # A client that vanished without a word is noticed within a minute.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        # gRPC adds a tenth of jitter by itself: https://github.com/grpc/proposal/blob/master/A9-server-side-conn-mgt.md
        ("grpc.max_connection_age_ms", round(max_connection_age * 1000)),
        ("grpc.max_connection_age_grace_ms", round(AGE_GRACE * 1000)),
        ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
        # All clients may come at once. By default C-core cancels calls at random as soon as a thousand wait.
        ("grpc.server.max_pending_requests", MAX_STREAMS),
        ("grpc.server.max_pending_requests_hard_limit", MAX_STREAMS),
    )


def make_source(settings: Settings, publish: Callable[[Changes], None]) -> Source:
    """The source that the settings ask for."""
    if settings.discovery == "files" and settings.discovery_dir is not None:
        return FilesSource(
            publish,
            directory=settings.discovery_dir,
            poll_interval=settings.poll_interval,
            watch=settings.watch,
        )
    return KubernetesSource(
        publish, namespaces=settings.namespaces, poll_interval=settings.poll_interval, watch=settings.watch
    )
