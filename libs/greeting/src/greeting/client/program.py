"""The client's loops: calling, looking at what xDS brought, telling the spread; all until a signal.

No error of a call ends them. It must not decide what is worth saying: pure modules beside it do.
"""

import asyncio
import functools
import math
import os

import grpc
import structlog
from grpc_csds import ClientStatusDiscoveryServiceServicer

from greeter.v1.greeter_pb2 import SayHelloRequest
from greeter.v1.greeter_pb2_grpc import GreeterStub
from greeting.client import bootstrap, csds
from greeting.client.advice import is_xds_server_unreachable, mend
from greeting.client.bootstrap import Bootstrap
from greeting.client.failures import Failures
from greeting.client.message import Message
from greeting.client.settings import ClientSettings, is_xds
from greeting.client.spread import Spread
from servicekit import lifecycle
from servicekit.lifecycle import Stop

LOOK_EVERY = 1.0
TELL_SPREAD_EVERY = 60.0
CHANNEL_OPTIONS = (
    # gRPC would try a pod that was away for long again after two minutes only; a person is watching this one.
    # (The connection to the xDS server has gRPC's own settings: no option reaches it.)
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # A connection to a node that was lost says nothing. On Linux the timeout is also how long what was sent may stay
    # unacknowledged before the connection is given up and calls go to other pods; without it, they go on hanging
    # until Kubernetes has noticed. https://github.com/grpc/proposal/blob/master/A18-tcp-user-timeout.md
    # Pings are for connections on which nothing else is sent; every server allows one in five minutes.
    ("grpc.keepalive_time_ms", 360_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # No proxy: gRPC would send calls to the pods through the one that http_proxy names.
    ("grpc.enable_http_proxy", 0),
)

log = structlog.get_logger()


def run(settings: ClientSettings, program: str) -> int:
    """Run the program and return its exit code."""
    return lifecycle.run(program, functools.partial(call_until, settings))


async def call_until(settings: ClientSettings, stop: Stop) -> None:
    """Call the target until `stop`."""
    found = bootstrap.read(os.environ) if is_xds(settings.target) else None
    if found:
        log.info("bootstrap", xds_server=found.xds_server, node=found.node_id, source=found.source)
    log.info("calling", target=settings.target, interval=settings.interval, timeout=settings.timeout)
    async with grpc.aio.insecure_channel(settings.target, options=CHANNEL_OPTIONS) as channel:
        client = _Client(settings, channel, found)
        async with asyncio.TaskGroup() as group:
            loops = [
                client.call_steadily(),
                client.tell_spread(),
                *([client.look_steadily()] if found else []),
            ]
            tasks = [group.create_task(each) for each in loops]
            await stop.wait()
            for task in tasks:
                task.cancel()
    client.tell_total()


class _Client:
    def __init__(
        self, settings: ClientSettings, channel: grpc.aio.Channel, bootstrap: Bootstrap | None
    ) -> None:
        self._settings = settings
        self._stub = GreeterStub(channel)
        self._bootstrap = bootstrap
        self._clock = asyncio.get_running_loop().time
        self._history = csds.History()
        self._failures = Failures()
        self._connected = True
        self._minute = Spread()
        self._total = Spread()

    async def call_steadily(self) -> None:
        beat = self._clock()
        while True:
            await self._call()
            beat = next_beat(beat, self._clock(), self._settings.interval)
            await asyncio.sleep(beat - self._clock())

    async def look_steadily(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            self._look()

    async def tell_spread(self) -> None:
        while True:
            await asyncio.sleep(TELL_SPREAD_EVERY)
            _tell(self._minute.message("last minute"))
            self._minute = Spread()

    def tell_total(self) -> None:
        _tell(self._total.message("in all"))

    async def _call(self) -> None:
        request = SayHelloRequest(name=self._settings.name)
        try:
            reply = await self._stub.SayHello(request, timeout=self._settings.timeout)
        except grpc.aio.AioRpcError as error:
            self._failed(error)
            return
        if reply.hostname not in self._total:
            self._look()  # so that an endpoint is announced before its first reply
        if message := self._failures.worked(self._clock()):
            _tell(message)
        self._connected = True
        log.info("reply", message=reply.message, hostname=reply.hostname, ip=reply.ip)
        for spread in (self._minute, self._total):
            spread.replied(reply.hostname)

    def _failed(self, error: grpc.aio.AioRpcError) -> None:
        details = error.details() or ""
        self._connected = not is_xds_server_unreachable(details)
        remedy = mend(details, self._bootstrap)
        for spread in (self._minute, self._total):
            spread.failed()
        if message := self._failures.failed(self._clock(), error.code().name, details, remedy):
            self._look()  # so that a change of endpoints is told before its consequence
            _tell(message)

    def _look(self) -> None:
        if self._bootstrap is None:
            return
        response = ClientStatusDiscoveryServiceServicer.FetchClientStatus(None, None)
        found = csds.resources(response, self._settings.target)
        for message in self._history.look(found, self._clock(), connected=self._connected):
            _tell(message)


def next_beat(beat: float, now: float, interval: float) -> float:
    """Return when to call next: on the beat, leaving out the beats that passed during a long call."""
    return beat + max(1, math.ceil((now - beat) / interval)) * interval


def _tell(message: Message) -> None:
    (log.warning if message.warning else log.info)(message.event, **message.facts)
