"""The demo as a whole: which programs run, in which order they start and end, and how many replicas there are.

It plays the parts of the Deployment, kubelet and the EndpointSlice controller.
"""

import asyncio
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count

import watchfiles

from local_demo import addresses, environment, manifests, program
from local_demo.environment import Environment, Listening
from local_demo.manifests import Endpoint, Service
from local_demo.output import Output
from local_demo.program import Launch, Program
from local_demo.state import State
from servicekit.addresses import Address
from servicekit.errors import ServiceError

SERVICES = (Service("hello-server", 50051), Service("howdy-server", 50052))
CLIENTS = {"hello-client": SERVICES[0], "howdy-client": SERVICES[1]}
XDS_SERVER = "xds-server"
REPLICAS = 2
ZONES = ("zone-a", "zone-b")

_GRACE = 30.0
"""Seconds that a replica gets to drain when it is scaled away: Kubernetes's default."""
_LAST_GRACE = 3.0
"""Seconds that a program gets to stop when everything ends."""


@dataclass
class Replica:
    """The counterpart of a pod.

    Attributes:
        program: Its program.
        zone: The zone that its EndpointSlice names.
        draining: Whether its end was requested.
    """

    program: Program
    zone: str
    draining: bool = False

    def endpoint(self) -> Endpoint | None:
        """Describes it; None before it has an address, as for a pod that is not scheduled."""
        launch = self.program.launch
        if launch is None or launch.address is None:
            return None
        return Endpoint(
            self.program.name,
            launch.address,
            self.zone,
            ready=self.program.ready and not self.draining,
            # As it was when it began to drain: it answers until it is gone, and its health is not checked any more.
            serving=self.program.ready,
            terminating=self.draining,
        )


class Supervisor:
    """Runs the programs of the demo."""

    def __init__(self, state: State, output: Output, user: Environment, where: Listening) -> None:
        self._state = state
        self._output = output
        self._user = user
        self._where = where
        self._executables = {
            name: program.find(name) for name in (XDS_SERVER, *(s.name for s in SERVICES), *CLIENTS)
        }
        self._replicas: dict[Service, list[Replica]] = {service: [] for service in SERVICES}
        self._numbers = {service: count(1) for service in SERVICES}
        self._changed = asyncio.Event()
        self._group = asyncio.TaskGroup()
        self._failure: Exception | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Runs everything until `stop`. When cancelled, everything is killed.

        Raises:
            ServiceError: The state directory could not be used any more; everything has ended.
        """
        for service in SERVICES:
            self._state.set_desired_replicas(service.name, REPLICAS)
        async with self._group:
            xds_server = self._start(XDS_SERVER, self._xds_server_launch)
            clients: list[Program] = []
            helpers = [
                self._group.create_task(self._follow_desired_replicas(stop)),
                *(self._group.create_task(self._start_client(name, xds_server, clients)) for name in CLIENTS),
            ]
            await stop.wait()
            self._say("stopping")
            for helper in helpers:
                helper.cancel()
            servers = [replica.program for replicas in self._replicas.values() for replica in replicas]
            await _end(clients, signal.SIGTERM)
            # SIGINT, as Ctrl-C does, leaves out the drain delay: there are no clients left, and a person is waiting.
            await _end(servers, signal.SIGINT)
            await _end([xds_server], signal.SIGTERM)
        if self._failure is not None:
            raise ServiceError(f"the demo has ended: {self._failure}")

    def _start(self, name: str, next_launch: Callable[[], Launch]) -> Program:
        started = Program(
            name,
            next_launch,
            state=self._state,
            output=self._output,
            on_change=self._on_change,
        )
        self._group.create_task(started.run())
        return started

    def _xds_server_launch(self) -> Launch:
        where = self._where
        return Launch(
            [self._executables[XDS_SERVER], "serve"],
            environment.of_xds_server(self._user, where, self._state.endpoints),
            where.xds.reachable,
        )

    async def _start_client(self, name: str, xds_server: Program, clients: list[Program]) -> None:
        """Starts a client once its servers are ready, so that its first lines are not errors."""
        replicas = self._replicas[CLIENTS[name]]
        while not (xds_server.ready and all(replica.program.ready for replica in replicas)):
            await self._changed.wait()
        launch = Launch([self._executables[name]], environment.of_client(self._user, name, self._where))
        clients.append(self._start(name, lambda: launch))

    async def _follow_desired_replicas(self, stop: asyncio.Event) -> None:
        """Scales the services as their files say; requests the stop if these cannot be used any more."""
        try:
            await self._scale_on_changes()
        except OSError as error:
            self._failure = error
            stop.set()

    async def _scale_on_changes(self) -> None:
        self._scale_all()
        # A change that the watch misses is found within a second.
        async for _ in watchfiles.awatch(
            self._state.replicas,
            watch_filter=None,
            debounce=50,
            step=10,
            rust_timeout=1000,
            yield_on_timeout=True,
        ):
            self._scale_all()

    def _scale_all(self) -> None:
        self._state.require_directory()
        for service in SERVICES:
            try:
                self._scale(service, self._state.desired_replicas(service.name))
            except ServiceError as error:
                kept = sum(not replica.draining for replica in self._replicas[service])
                self._say(f"{error}; {service.name} keeps {kept}")
                self._state.set_desired_replicas(service.name, kept)
        self._publish()

    def _scale(self, service: Service, desired: int) -> None:
        replicas = [replica for replica in self._replicas[service] if not replica.draining]
        if len(replicas) != desired:
            self._say(f"scaling {service.name} from {len(replicas)} to {desired}")
        # The newest go first, as a ReplicaSet has it.
        for replica in replicas[desired:]:
            replica.draining = True
            self._group.create_task(self._remove(service, replica))
        for _ in range(len(replicas), desired):
            self._add(service)

    def _add(self, service: Service) -> None:
        name = f"{service.name}-{next(self._numbers[service])}"
        zones = [replica.zone for replica in self._replicas[service] if not replica.draining]
        zone = min(ZONES, key=zones.count)

        def next_launch() -> Launch:
            # Another program may have taken the port of the last start.
            address = Address(addresses.LOOPBACK, addresses.free_port())
            return Launch(
                [self._executables[service.name]], environment.of_server(self._user, name, address), address
            )

        self._replicas[service].append(Replica(self._start(name, next_launch), zone))

    async def _remove(self, service: Service, replica: Replica) -> None:
        await replica.program.end(signal.SIGTERM, grace=_GRACE)
        self._replicas[service].remove(replica)
        self._say(f"{replica.program.name} is gone")
        self._publish()

    def _on_change(self, changed: Program) -> None:
        if changed.launch is not None and changed.launch.address is not None:
            self._say(
                f"{changed.name} is {'ready on' if changed.ready else 'not ready on'} {changed.launch.address}"
            )
        self._publish()

    def _publish(self) -> None:
        endpoints = {
            service: [endpoint for replica in replicas if (endpoint := replica.endpoint())]
            for service, replicas in self._replicas.items()
        }
        try:
            self._state.publish(manifests.files(endpoints))
        except OSError as error:  # the next change or second tries again
            self._say(f"cannot write the endpoints: {error}")
        self._changed.set()
        self._changed = asyncio.Event()

    def _say(self, text: str) -> None:
        self._output.write("local", text)


async def _end(programs: Iterable[Program], signal_number: signal.Signals) -> None:
    """Ends programs together; SIGTERM for those that are starting, as Python shows a traceback for SIGINT then."""
    await asyncio.gather(
        *(each.end(signal_number if each.ready else signal.SIGTERM, grace=_LAST_GRACE) for each in programs)
    )
