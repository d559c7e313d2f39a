"""The server program: serves the greeter with health and reflection until a shutdown, then drains.

A program like hello-server brings its name and its defaults.
"""

import asyncio
import functools
import socket
from typing import Annotated

import grpc
import structlog
from grpc_health.v1.health import SERVICE_NAME as HEALTH
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_reflection.v1alpha import reflection
from pydantic import Field

from greeter.v1 import greeter_pb2, greeter_pb2_grpc
from greeting import address
from greeting.servicer import Greeter
from servicekit import commands, health, lifecycle, listening, logs
from servicekit.lifecycle import Shutdown
from servicekit.settings import Delay, Port, ServiceSettings

log = structlog.get_logger()

GREETER = greeter_pb2.DESCRIPTOR.services_by_name["Greeter"].full_name

GRACE = 15.0
"""Seconds that running calls get when the server stops: more than their clients wait, even on a node so busy that a
greeting takes seconds."""

ListenPort = Annotated[
    Port, Field(description="The port to listen on, on all addresses; 0 takes any free one.")
]
Greeting = Annotated[str, Field(description="How to greet.")]


class ServerSettings(ServiceSettings):
    """The settings of a greeter's server."""

    port: ListenPort
    greeting: Greeting
    drain_delay: Delay = Field(
        default=5,
        description="Seconds to keep serving, as NOT_SERVING, after SIGTERM, so that clients stop calling first.",
    )
    fail_percent: int = Field(
        default=0,
        ge=0,
        le=100,
        description="For demos of retries and outlier detection: how many calls of a hundred fail with UNAVAILABLE.",
    )
    hostname: str = Field(
        default_factory=socket.gethostname, description="Host name in replies. Default: this machine's."
    )
    pod_ip: str = Field(
        default_factory=address.own_ip, description="IP address in replies. Default: this machine's."
    )


def run(program: str, settings_type: type[ServerSettings]) -> int:
    """Runs the program and returns its exit code."""

    def serve_until_shutdown(settings: ServerSettings) -> int:
        logs.configure(settings.log_format, settings.log_level)
        return lifecycle.run(program, functools.partial(serve, settings))

    return commands.run_command(program, settings_type, serve_until_shutdown)


async def serve(settings: ServerSettings, shutdown: Shutdown) -> None:
    """Serves until the shutdown, then drains.

    A draining server is NOT_SERVING at once but keeps answering for the drain delay, while the change reaches
    Kubernetes' endpoints, then xds-server, then each client.
    """
    server = grpc.aio.server(options=listening.SERVER_OPTIONS)
    greeter_pb2_grpc.add_GreeterServicer_to_server(
        Greeter(settings.greeting, settings.hostname, settings.pod_ip, settings.fail_percent), server
    )
    status = health.add(server, [GREETER])
    reflection.enable_server_reflection([GREETER, HEALTH, reflection.SERVICE_NAME], server)
    port = listening.bind(server, f"[::]:{settings.port}")
    await server.start()
    for service in ("", GREETER):
        status.set(service, HealthCheckResponse.SERVING)
    log.info("serving", port=port, hostname=settings.hostname, ip=settings.pod_ip)

    await shutdown.wait()
    status.enter_graceful_shutdown()
    if not shutdown.interactive:
        log.info("not serving any more, still answering", seconds=settings.drain_delay)
        await asyncio.sleep(settings.drain_delay)
    status.end_watches()
    await server.stop(GRACE)
    log.info("stopped")
