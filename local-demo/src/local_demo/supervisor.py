"""The demo as a whole: which programs run, in which order they start and end, and how many replicas there are.

It plays the parts of the Deployment, kubelet and the EndpointSlice controller.
"""

import asyncio
import signal
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Generic, TypeVar

import watchfiles

from local_demo import addresses, environment, manifests, objects, program
from local_demo.environment import Environment, Listening, Ports
from local_demo.manifests import Endpoint, Greeter
from local_demo.objects import Deployment, Object, Template
from local_demo.output import Output
from local_demo.program import Launch, Program
from local_demo.state import State, Status
from servicekit.addresses import Address
from servicekit.errors import ServiceError

GREETERS = (Greeter("hello-server", 50051), Greeter("howdy-server", 50052))
CLIENTS = dict(zip(objects.CLIENTS, GREETERS, strict=True))
XDS_SERVER = "xds-server"
SUPERVISOR = "local-demo"
"""The account of the supervisor, which asks xds-server for its health."""
ACCOUNTS = (XDS_SERVER, *objects.SERVERS, *objects.CLIENTS, SUPERVISOR)
"""Who has a certificate in a secured demo."""
REPLICAS = 2
ZONES = ("zone-a", "zone-b")
_CLIENT_ZONES = dict(zip(objects.CLIENTS, ZONES, strict=True))

_GRACE = 30.0
"""Seconds that a replica gets to drain when it is scaled away: Kubernetes's default."""
_LAST_GRACE = 3.0
"""Seconds that a program gets to stop when everything ends."""


T = TypeVar("T")


@dataclass
class Replica:
    """The counterpart of a pod.

    Attributes:
        program: Its program.
        template: What it was made of.
        zone: The zone that its EndpointSlice, or its bootstrap, names.
        draining: Whether its end was requested.
    """

    program: Program
    template: Template
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
            self.template.labels,
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
            name: program.find(name) for name in (XDS_SERVER, *objects.SERVERS, *objects.CLIENTS)
        }
        self._deployments = _Followed(objects.deployment, self._say)
        self._services = _Followed(objects.service, self._say)
        # By the names of the Deployments.
        self._replicas: defaultdict[str, list[Replica]] = defaultdict(list)
        self._numbers: defaultdict[str, Iterator[int]] = defaultdict(lambda: count(1))
        self._changed = asyncio.Event()
        self._group = asyncio.TaskGroup()
        self._failure: Exception | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Runs everything until `stop`. When cancelled, everything is killed.

        Raises:
            ServiceError: The state directory could not be used any more; everything has ended.
        """
        self._state.set_admin(str(self._where.admin.reachable))
        for greeter in GREETERS:
            for document in manifests.greeter(greeter, REPLICAS):
                self._state.put(objects.kept(document, None, objects.now()))
        for client, greeter in CLIENTS.items() if self._where.certificates else ():
            self._state.put(objects.kept(manifests.policy(greeter, client), None, objects.now()))
        async with self._group:
            xds_server = self._start(XDS_SERVER, self._xds_server_launch)
            clients: list[Program] = []
            helpers = [
                self._group.create_task(self._follow_objects(stop)),
                *(self._group.create_task(self._start_client(name, xds_server, clients)) for name in CLIENTS),
            ]
            await stop.wait()
            self._say("stopping")
            for helper in helpers:
                helper.cancel()
            replicas = [replica for found in self._replicas.values() for replica in found]
            servers = [each.program for each in replicas if each.template.program in objects.SERVERS]
            applied = [each.program for each in replicas if each.template.program in objects.CLIENTS]
            await _end([*clients, *applied], signal.SIGTERM)
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
            environment.of_xds_server(self._user, where, self._state.objects),
            where.xds.reachable,
            where.xds.reachable,
            where.certificate(SUPERVISOR),
        )

    async def _start_client(self, name: str, xds_server: Program, clients: list[Program]) -> None:
        """Starts a client once its servers are ready, so that its first lines are not errors."""
        replicas = self._replicas[CLIENTS[name].name]
        while not (xds_server.ready and all(replica.program.ready for replica in replicas)):
            await self._changed.wait()
        launch = self._client_launch(name, Template(name, {}, {}), _CLIENT_ZONES[name])
        clients.append(self._start(name, lambda: launch))

    async def _follow_objects(self, stop: asyncio.Event) -> None:
        """Runs what the objects say; requests the stop if their files cannot be used any more."""
        try:
            self._read_objects()
            # A change that the watch misses is found within a second.
            async for _ in watchfiles.awatch(
                self._state.objects,
                watch_filter=None,
                debounce=50,
                step=10,
                rust_timeout=1000,
                yield_on_timeout=True,
            ):
                self._read_objects()
        except OSError as error:
            self._failure = error
            stop.set()

    def _read_objects(self) -> None:
        self._state.require_directory()
        self._deployments.read(self._state.texts(objects.DEPLOYMENT))
        self._services.read(self._state.texts(objects.SERVICE))
        self._reconcile()

    def _reconcile(self) -> None:
        for name in {*self._deployments.found, *self._replicas}:
            self._reconcile_deployment(name, self._deployments.found.get(name))
        self._publish()

    def _reconcile_deployment(self, name: str, deployment: Deployment | None) -> None:
        """Starts what is missing; ends what is too much, and what has an earlier template once the new is ready."""
        replicas = [replica for replica in self._replicas[name] if not replica.draining]
        current = [each for each in replicas if deployment and each.template == deployment.template]
        old = [each for each in replicas if each not in current]
        desired = deployment.replicas if deployment else 0
        if len(current) != desired:
            self._say(
                f"replacing {len(old)} by {desired} of {name}"
                if old and desired
                else f"scaling {name} from {len(replicas)} to {desired}"
            )
        # The newest go first, as a ReplicaSet has it.
        excess = current[desired:]
        if len(current) >= desired and all(replica.program.ready for replica in current[:desired]):
            excess += old
        for replica in excess:
            replica.draining = True
            self._group.create_task(self._remove(name, replica))
        for _ in range(len(current), desired):
            assert deployment is not None  # noqa: S101 - for the type checker: otherwise none is desired
            self._add(deployment)

    def _add(self, deployment: Deployment) -> None:
        name = f"{deployment.name}-{next(self._numbers[deployment.name])}"
        template = deployment.template
        zones = [replica.zone for replica in self._replicas[deployment.name] if not replica.draining]
        zone = min(ZONES, key=zones.count)

        def next_launch() -> Launch:
            if template.program in objects.CLIENTS:
                return self._client_launch(name, template, zone)
            # Another program may have taken the port of the last start.
            ports = self._free_ports()
            who = environment.Replica(name, template.program, zone)
            own = environment.of_server(self._user, template.environment, who, self._where, ports)
            return Launch([self._executables[template.program]], own, ports.greeter, ports.health)

        self._replicas[deployment.name].append(Replica(self._start(name, next_launch), template, zone))

    def _free_ports(self) -> Ports:
        greeter = Address(addresses.LOOPBACK, addresses.free_port())
        secured = self._where.certificates is not None
        return Ports(greeter, Address(addresses.LOOPBACK, addresses.free_port()) if secured else greeter)

    def _client_launch(self, name: str, template: Template, zone: str) -> Launch:
        who = environment.Replica(name, template.program, zone)
        own = environment.of_client(self._user, template.environment, who, self._where)
        return Launch([self._executables[template.program]], own)

    async def _remove(self, deployment: str, replica: Replica) -> None:
        await replica.program.end(signal.SIGTERM, grace=_GRACE)
        self._replicas[deployment].remove(replica)
        self._say(f"{replica.program.name} is gone")
        self._publish()

    def _on_change(self, changed: Program) -> None:
        if changed.launch is not None and changed.launch.address is not None:
            self._say(
                f"{changed.name} is {'ready on' if changed.ready else 'not ready on'} {changed.launch.address}"
            )
        self._reconcile()

    def _publish(self) -> None:
        endpoints = [
            endpoint
            for replicas in self._replicas.values()
            for replica in replicas
            if (endpoint := replica.endpoint())
        ]
        names = {*self._deployments.found, *(name for name, replicas in self._replicas.items() if replicas)}
        try:
            self._state.publish(
                manifests.slices(list(self._services.found.values()), endpoints),
                {name: self._status(name) for name in names},
            )
        except OSError as error:  # the next change or second tries again
            self._say(f"cannot write the endpoints: {error}")
        self._changed.set()
        self._changed = asyncio.Event()

    def _status(self, name: str) -> Status:
        deployment, replicas = self._deployments.found.get(name), self._replicas[name]
        draining = sum(replica.draining for replica in replicas)
        current = [
            each
            for each in replicas
            if deployment and each.template == deployment.template and not each.draining
        ]
        return Status(
            generation=deployment.generation if deployment else 0,
            ready=sum(replica.program.ready for replica in current),
            old=len(replicas) - draining - len(current),
            draining=draining,
        )

    def _say(self, text: str) -> None:
        self._output.write("local", text)


class _Followed(Generic[T]):
    """The objects of one kind, by name, as their files had them last; a malformed one stays as it was.

    Attributes:
        found: The objects.
    """

    def __init__(self, decode: Callable[[Object], T], say: Callable[[str], None]) -> None:
        self.found: dict[str, T] = {}
        self._decode = decode
        self._say = say
        self._texts: dict[str, str] = {}

    def read(self, texts: dict[str, str]) -> None:
        """Takes over the texts of the files, by the names of the objects."""
        for name in self.found.keys() - texts.keys():
            del self.found[name]
        for name, text in texts.items():
            if text != self._texts.get(name):
                try:
                    [document] = objects.parse(text, name)
                    self.found[name] = self._decode(document)
                except (ServiceError, ValueError) as error:
                    self._say(f"{error}; {name} stays as it was")
        self._texts = texts


async def _end(programs: Iterable[Program], signal_number: signal.Signals) -> None:
    """Ends programs together; SIGTERM for those that are starting, as Python shows a traceback for SIGINT then."""
    await asyncio.gather(
        *(each.end(signal_number if each.ready else signal.SIGTERM, grace=_LAST_GRACE) for each in programs)
    )
