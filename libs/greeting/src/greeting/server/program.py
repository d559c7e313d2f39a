"""Serving until a shutdown, then draining."""

import asyncio
import functools

import structlog

from greeter.v1 import greeter_pb2
from greeting.server.plain import PlainServer
from greeting.server.secured import SecuredServer
from greeting.server.servicer import Greeter
from greeting.server.settings import ServerSettings
from servicekit import lifecycle
from servicekit.lifecycle import Shutdown

log = structlog.get_logger()

GREETER = greeter_pb2.DESCRIPTOR.services_by_name["Greeter"].full_name

GRACE = 15.0
"""Seconds that running calls get when the server stops: more than their clients wait, even on a node so busy that a
greeting takes seconds."""


def run(settings: ServerSettings, program: str) -> int:
    """Runs the program and returns its exit code."""
    return lifecycle.run(program, functools.partial(serve, settings))


async def serve(settings: ServerSettings, shutdown: Shutdown) -> None:
    """Serves until the shutdown, then drains.

    A draining server is NOT_SERVING at once but keeps answering for the drain delay, while the change reaches
    Kubernetes' endpoints, then xds-server, then each client.
    """
    greeter = Greeter(settings.greeting, settings.hostname, settings.pod_ip, settings.fail_percent)
    server: PlainServer | SecuredServer
    if settings.xds_server:
        server = SecuredServer(greeter, [GREETER], port=settings.port, health_port=settings.health_port)
    else:
        server = PlainServer(greeter, [GREETER], port=settings.port)
    await server.start()

    await shutdown.wait()
    server.drain()
    if not shutdown.interactive:
        log.info("not serving any more, still answering", seconds=settings.drain_delay)
        await asyncio.sleep(settings.drain_delay)
    await server.stop(GRACE)
    log.info("stopped")
