"""The source that reads a Kubernetes API server: two threads for each collection, and a mirror in the event loop.

What is written goes the other way, by a thread for statuses and one for Events.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterable

import structlog

from xds_server.kubernetes.api import Api
from xds_server.kubernetes.events import EventWriter
from xds_server.kubernetes.limits import DEFAULT_LIMITS, Limits
from xds_server.kubernetes.mirror import Mirror
from xds_server.kubernetes.reflector import Reflector
from xds_server.kubernetes.writer import StatusWriter
from xds_server.objects.kinds import Collection
from xds_server.source import Target

log = structlog.get_logger()


class KubernetesSource:
    """Lists, polls and watches collections.

    Args:
        store: Where what is found is applied, in the event loop.
        collections: What to read.
        poll_interval: Seconds from one list to the next.
        watch: Whether to watch in between.
        limits: Deadlines and waits.

    Attributes:
        statuses: Writes the statuses of objects.
        events: Writes Events.

    Raises:
        ConfigurationError: There is no way to reach an API server.
    """

    def __init__(
        self,
        store: Target,
        collections: Iterable[Collection],
        *,
        poll_interval: float,
        watch: bool,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._mirrors = [Mirror(store, collection) for collection in dict.fromkeys(collections)]
        # A list and a watch of each collection, the two writers, and some that have just been closed.
        self._api = Api(limits, connections=2 * len(self._mirrors) + 6)
        self.statuses = StatusWriter(self._api)
        self.events = EventWriter(self._api)
        self._poll_interval = poll_interval
        self._watch = watch
        self._limits = limits

    def age(self) -> float:
        """Seconds since every collection was confirmed; infinite before the first time. For the event loop alone."""
        return time.monotonic() - min(mirror.confirmed for mirror in self._mirrors)

    async def run(self) -> None:
        """Runs the threads until it is cancelled. Raises if one of them raises or ends."""
        log.info(
            "discovering from Kubernetes",
            server=self._api.host,
            watch=self._watch,
            poll_interval=self._poll_interval,
        )
        threads = _Threads(asyncio.get_running_loop())
        reflectors = [
            Reflector(
                self._api,
                mirror,
                threads.post,
                poll_interval=self._poll_interval,
                limits=self._limits,
            )
            for mirror in self._mirrors
        ]
        for reflector, mirror in zip(reflectors, self._mirrors, strict=True):
            kind, namespace = mirror.collection
            name = f"{kind.plural} {namespace}".strip()
            threads.start(f"lists {name}", reflector.run_lists)
            if self._watch:
                threads.start(f"watches {name}", reflector.run_watches)
        threads.start("writes statuses", self.statuses.run)
        threads.start("writes Events", self.events.run)
        try:
            await threads.broken
        finally:
            for reflector in reflectors:
                reflector.stop()
            self.statuses.stop()
            self.events.stop()


class _Threads:
    """Threads that never end by themselves, and their way into the event loop.

    Attributes:
        broken: Raises if a thread ended, or if what it posted could not be applied.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.broken: asyncio.Future[None] = loop.create_future()
        self._loop = loop

    def start(self, name: str, run: Callable[[], None]) -> None:
        """Starts a thread."""
        # A daemon: a thread that waits for a silent API server must not keep the program from ending.
        threading.Thread(target=self._run, args=(name, run), name=name, daemon=True).start()

    def post(self, call: Callable[[], None]) -> None:
        """Calls something in the event loop, in the order of the posts."""
        self._call(self._apply, call)

    def _run(self, name: str, run: Callable[[], None]) -> None:
        try:
            run()
            error: Exception = RuntimeError(f"the thread that {name} ended")
        except Exception as raised:  # noqa: BLE001 - passed on
            error = raised
        self._call(self._break, error)

    def _apply(self, call: Callable[[], None]) -> None:
        if self.broken.done():
            return
        try:
            call()
        except Exception as error:  # noqa: BLE001 - passed on
            self._break(error)

    def _break(self, error: Exception) -> None:
        if not self.broken.done():
            self.broken.set_exception(error)

    def _call(self, call: Callable[..., None], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *args)
        except RuntimeError:
            log.debug("event loop is closed; the program is ending")
