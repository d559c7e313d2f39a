"""The state of the mesh from a Kubernetes API server: a reflector, in a thread, for each collection.

The threads only read and decode; what they find is handed to the event loop, where the registry lives.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from xds_server.discovery import objects
from xds_server.discovery.api import Api
from xds_server.discovery.reflector import Reflector
from xds_server.discovery.registry import Changes, Collection, Registry

log = structlog.get_logger()

_RESOURCES: dict[type[objects.Service | objects.EndpointSlice], tuple[str, str]] = {
    objects.Service: ("/api/v1", "services"),
    objects.EndpointSlice: ("/apis/discovery.k8s.io/v1", "endpointslices"),
}


class KubernetesSource:
    """Lists, polls and watches services and endpoint slices.

    Args:
        publish: Takes the services that changed.
        namespaces: The only ones to look at; none means all.
        poll_interval: Seconds from one list to the next.
        watch: Whether to watch in between.

    Raises:
        ConfigurationError: There is no way to reach an API server.
    """

    def __init__(
        self,
        publish: Callable[[Changes], None],
        *,
        namespaces: Sequence[str],
        poll_interval: float,
        watch: bool,
    ) -> None:
        self._api = Api()
        self._poll_interval = poll_interval
        self._watch = watch
        self._collections: list[Collection] = [
            (kind, namespace) for namespace in (namespaces or [""]) for kind in _RESOURCES
        ]
        self._confirmed: dict[Collection, float] = {}
        self.registry = Registry(self._collections, publish)

    def age(self) -> float:
        """Seconds since every collection was confirmed; infinite before the first time."""
        if not self.registry.synced:
            return float("inf")
        return time.monotonic() - min(self._confirmed.values())

    async def run(self) -> None:
        """Starts the reflectors, and stops them when it is cancelled."""
        log.info(
            "discovering from Kubernetes",
            server=self._api.host,
            watch=self._watch,
            poll_interval=self._poll_interval,
        )
        loop = asyncio.get_running_loop()
        stop = threading.Event()
        broken: asyncio.Future[None] = loop.create_future()

        def mirror(reflector: Reflector) -> None:
            """Runs a reflector; an error that it does not know must end the program, not its thread alone."""
            try:
                reflector.run()
            except Exception as error:  # noqa: BLE001 - passed on
                loop.call_soon_threadsafe(_break, broken, error)

        for collection in self._collections:
            kind, namespace = collection
            group, plural = _RESOURCES[kind]
            reflector = Reflector(
                api=self._api,
                path=f"{group}/namespaces/{namespace}/{plural}" if namespace else f"{group}/{plural}",
                kind=kind,
                sink=_LoopSink(loop, self.registry, collection, self._confirmed),
                poll_interval=self._poll_interval,
                watch=self._watch,
                stop=stop,
            )
            # A daemon: a thread that waits for a silent API server must not keep the program from ending.
            name = f"reflector {plural} {namespace}"
            threading.Thread(target=mirror, args=(reflector,), name=name, daemon=True).start()
        try:
            await broken
        finally:
            stop.set()


def _break(broken: asyncio.Future[None], error: Exception) -> None:
    if not broken.done():
        broken.set_exception(error)


@dataclass(frozen=True, slots=True)
class _LoopSink:
    """Takes a reflector's findings over into the event loop, in order."""

    loop: asyncio.AbstractEventLoop
    registry: Registry
    collection: Collection
    times: dict[Collection, float]

    def listed(self, items: list[objects.Object], malformed: set[objects.Key]) -> None:
        self._post(self._replace, items, malformed)
        self.confirmed()

    def put(self, item: objects.Object) -> None:
        self._post(self.registry.put, self.collection, item)

    def removed(self, key: objects.Key) -> None:
        self._post(self.registry.remove, self.collection, key)

    def confirmed(self) -> None:
        self.times[self.collection] = time.monotonic()

    def _replace(self, items: list[objects.Object], malformed: set[objects.Key]) -> None:
        # An object that can't be understood any more stays as it was last understood.
        kept = (self.registry.get(self.collection, key) for key in malformed)
        self.registry.replace({self.collection: [*items, *(item for item in kept if item is not None)]})

    def _post(self, call: Callable[..., None], *args: object) -> None:
        try:
            self.loop.call_soon_threadsafe(call, *args)
        except RuntimeError:
            log.debug("the program is ending")
