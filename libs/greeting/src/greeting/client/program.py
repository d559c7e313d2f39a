"""The client's loops: making calls, watching its xDS resources, logging the spread; all until a shutdown.

No error of a call ends them. The pure modules beside it decide what is logged.
"""

import asyncio
import functools
import itertools
import math
import os

import grpc
import structlog
from grpc.experimental import insecure_channel_credentials
from grpc_csds import ClientStatusDiscoveryServiceServicer

from greeter.v1.greeter_pb2 import SayHelloRequest
from greeter.v1.greeter_pb2_grpc import GreeterStub
from greeting import bootstrap
from greeting.bootstrap import Bootstrap
from greeting.client import csds, hints
from greeting.client.failures import Failures
from greeting.client.message import Message
from greeting.client.settings import ClientSettings, Metadata, is_xds
from greeting.client.spread import Spread
from servicekit import lifecycle
from servicekit.lifecycle import Shutdown

CSDS_PERIOD = 1.0
SPREAD_PERIOD = 60.0
CHANNEL_OPTIONS = (
    # By default gRPC waits up to two minutes before it reconnects to a pod; a person is watching this client.
    # (The connection to the xDS server has gRPC's own settings: no option reaches it.)
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # The loss of a node closes no connection. On Linux the timeout is also how long sent data may stay
    # unacknowledged before gRPC closes the connection and calls go to other pods; without it they hang until
    # Kubernetes notices. https://github.com/grpc/proposal/blob/master/A18-tcp-user-timeout.md
    # Pings are for idle connections; every server allows one in five minutes.
    ("grpc.keepalive_time_ms", 360_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # Otherwise gRPC sends the calls to the pods through the proxy that http_proxy names.
    ("grpc.enable_http_proxy", 0),
)

log = structlog.get_logger()


def run(settings: ClientSettings, program: str) -> int:
    """Runs the program and returns its exit code."""
    return lifecycle.run(program, functools.partial(call_until, settings))


async def call_until(settings: ClientSettings, shutdown: Shutdown) -> None:
    """Calls the target until the shutdown."""
    found = bootstrap.read(os.environ) if is_xds(settings.target) else None
    if found:
        log.info("bootstrap", xds_server=found.xds_server, node=found.node_id, source=found.source)
    log.info("calling", target=settings.target, interval=settings.interval, timeout=settings.timeout)
    async with _channel(settings.target, has_xds=found is not None) as channel:
        client = _Client(settings, channel, found)
        endless = {"calls": client.call_steadily(), "spread": client.log_spread()}
        if found:
            endless["xDS"] = client.watch_xds()
        await lifecycle.run_until_shutdown(shutdown, endless)
    client.log_total()


class _Client:
    def __init__(
        self, settings: ClientSettings, channel: grpc.aio.Channel, bootstrap: Bootstrap | None
    ) -> None:
        self._settings = settings
        self._numbers = itertools.count()
        self._stub = GreeterStub(channel)
        self._bootstrap = bootstrap
        self._clock = asyncio.get_running_loop().time
        self._history = csds.History()
        self._failures = Failures()
        self._connected = True
        self._minute = Spread()
        self._total = Spread()

    async def call_steadily(self) -> None:
        due = self._clock()
        while True:
            await asyncio.gather(*(self._call() for _ in range(self._settings.concurrency)))
            due = next_call(due, self._clock(), self._settings.interval)
            await asyncio.sleep(due - self._clock())

    async def watch_xds(self) -> None:
        while True:
            await asyncio.sleep(CSDS_PERIOD)
            self._poll_csds()

    async def log_spread(self) -> None:
        while True:
            await asyncio.sleep(SPREAD_PERIOD)
            _log(self._minute.message("last minute"))
            self._minute = Spread()

    def log_total(self) -> None:
        _log(self._total.message("in all"))

    async def _call(self) -> None:
        request = SayHelloRequest(name=self._settings.name)
        sent = headers(self._settings.metadata, next(self._numbers))
        try:
            reply = await self._stub.SayHello(request, timeout=self._settings.timeout, metadata=sent)
        except grpc.aio.AioRpcError as error:
            self._failed(error)
            return
        if reply.hostname not in self._total:
            self._poll_csds()  # so that an endpoint is logged before its first reply
        if message := self._failures.succeeded(self._clock()):
            _log(message)
        self._connected = True
        also = {"metadata": dict(sent)} if sent else {}
        log.info("reply", message=reply.message, hostname=reply.hostname, ip=reply.ip, **also)
        for spread in (self._minute, self._total):
            spread.replied(reply.hostname)

    def _failed(self, error: grpc.aio.AioRpcError) -> None:
        details = error.details() or ""
        self._connected = not hints.is_xds_server_unreachable(details)
        hint = hints.hint(details, self._bootstrap)
        for spread in (self._minute, self._total):
            spread.failed()
        if message := self._failures.failed(self._clock(), error.code().name, details, hint):
            self._poll_csds()  # so that a change of endpoints is logged before its consequence
            _log(message)

    def _poll_csds(self) -> None:
        if self._bootstrap is None:
            return
        response = ClientStatusDiscoveryServiceServicer.FetchClientStatus(None, None)
        found = csds.resources(response, self._settings.target)
        for message in self._history.update(found, self._clock(), connected=self._connected):
            _log(message)


def _channel(target: str, *, has_xds: bool) -> grpc.aio.Channel:
    """A channel that encrypts if xds-server says so (gRFC A29), and else does not."""
    if not has_xds:
        return grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS)
    credentials = grpc.xds_channel_credentials(insecure_channel_credentials())  # type: ignore[no-untyped-call]
    return grpc.aio.secure_channel(target, credentials, options=CHANNEL_OPTIONS)


def next_call(due: float, now: float, interval: float) -> float:
    """Returns when the next call is due: on the schedule of `interval`, without the times that have passed."""
    return due + max(1, math.ceil((now - due) / interval)) * interval


def headers(metadata: Metadata, number: int) -> tuple[tuple[str, str], ...]:
    """Returns the headers of the call with that number."""
    return tuple((name, values[number % len(values)]) for name, values in metadata)


def _log(message: Message) -> None:
    (log.warning if message.warning else log.info)(message.event, **message.facts)
