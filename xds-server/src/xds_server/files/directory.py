"""Kubernetes objects from a directory of YAML and JSON files, kept up to date in a store.

Follows changes by file notifications, and scans the directory again at every poll. A file that can't be read or parsed
keeps its last good objects and harms no other file; a file that is deleted takes its objects with it. Reading blocks,
so it runs in a thread. This module must not know what the objects mean, nor which kinds there are, nor how a file is
read.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from pathlib import Path
from typing import TypeVar, cast

import structlog
import watchfiles

from servicekit.errors import ConfigurationError
from xds_server.files.file import File, read
from xds_server.objects import meta
from xds_server.objects.documents import Identity
from xds_server.objects.kinds import Collection
from xds_server.source import Target

log = structlog.get_logger()

SUFFIXES = frozenset({".yaml", ".yml", ".json"})
GATHER_MILLISECONDS = 20
"""How long to gather notifications, so that a tool that writes several files causes one change."""
LOOK_MILLISECONDS = 1000
"""How long to wait for a notification at a time."""

T = TypeVar("T")


class FilesSource:
    """Reads collections from a directory.

    Args:
        store: Where what is found is applied.
        collections: What to look for.
        directory: The directory; those below it do not count.
        poll_interval: Seconds from one scan of everything to the next.
        watch: Whether to follow file notifications in between.

    Raises:
        ConfigurationError: There is no such directory.
    """

    def __init__(
        self,
        store: Target,
        collections: Iterable[Collection],
        *,
        directory: Path,
        poll_interval: float,
        watch: bool,
    ) -> None:
        if not directory.is_dir():
            raise ConfigurationError(
                f"DISCOVERY_DIR={directory}: no such directory; create it, or name another"
            )
        self._store = store
        self._collections = tuple(collections)
        self._kinds = {(kind.api_version, kind.name): kind for kind, _ in self._collections}
        self._directory = directory
        self._poll_interval = poll_interval
        self._watch = watch
        self._files: dict[Path, File] = {}
        self._confirmed = float("-inf")
        self._unreadable = False
        self._unnotified = False
        self._duplicates: set[tuple[Identity, Path]] = set()

    def age(self) -> float:
        """Seconds since the directory was last read; infinite before the first time."""
        return time.monotonic() - self._confirmed

    async def run(self) -> None:
        """Reads now, after each notification, and at every poll."""
        log.info("discovering from files", directory=str(self._directory), watch=self._watch)
        while True:
            await self._scan()
            due = time.monotonic() + self._poll_interval
            if self._watch and not self._unreadable:
                async with contextlib.aclosing(self._notifications()) as notifications:
                    async for changed in notifications:
                        if changed:
                            await self._scan()
                        if time.monotonic() >= due:
                            break
            await asyncio.sleep(max(0, due - time.monotonic()))

    async def _notifications(self) -> AsyncGenerator[bool, None]:
        """Yields at least once a second: whether files may have changed. Ends if there are no notifications."""
        # Changes between the scan before this and the start of the notifications would go unnoticed.
        first = True
        try:
            notifications = watchfiles.awatch(
                self._directory,
                # The default filter ignores all changes below directories named .git, .venv, node_modules and so on.
                watch_filter=None,
                step=GATHER_MILLISECONDS,
                debounce=10 * GATHER_MILLISECONDS,
                recursive=False,
                rust_timeout=LOOK_MILLISECONDS,
                yield_on_timeout=True,
            )
            async with contextlib.aclosing(notifications):
                async for changes in notifications:
                    self._unnotified = self._unnotified and not changes
                    yield bool(changes) or first
                    first = False
        except (OSError, RuntimeError, ExceptionGroup) as error:
            # Such as a system that has no more file notifications to give. What the library raises of its own is a
            # RuntimeError, and comes in a group if the thread that waits raised it.
            if not self._unnotified:
                self._unnotified = True
                log.warning(
                    "file notifications do not work; changes are found by polls alone",
                    directory=str(self._directory),
                    poll_interval=self._poll_interval,
                    reason=str(error),
                )

    async def _scan(self) -> None:
        """Reads the files that changed, and applies everything."""
        try:
            files = await _in_daemon_thread(self._read_all)
        except OSError as error:
            if not self._unreadable:
                log.warning(
                    "directory can't be read; serving the last known state",
                    directory=str(self._directory),
                    reason=str(error),
                )
            self._unreadable = True
            return
        if self._unreadable:
            log.info("directory can be read again", directory=str(self._directory))
        self._unreadable = False
        removed = sum(len(file.items) for file in self._files.values())
        if removed and not any(file.items for file in files.values()):
            log.warning(
                "the directory has no objects any more; all are removed",
                directory=str(self._directory),
                removed=removed,
                hint="if this is not intended, check that the volume is mounted and the files are in place",
            )
        self._files = files
        self._confirmed = time.monotonic()
        self._store.replace(self._lists())

    def _lists(self) -> dict[Collection, list[meta.Object]]:
        """What all files hold, by collection; of two objects of one identity the first counts."""
        found: dict[Identity, meta.Object] = {}
        duplicates: set[tuple[Identity, Path]] = set()
        for path, file in self._files.items():
            for identity, item in file.items:
                if identity in found:
                    duplicates.add((identity, path))
                else:
                    found[identity] = item
        for identity, path in sorted(duplicates - self._duplicates, key=lambda each: (each[0].key, each[1])):
            log.warning(
                "object is defined twice; the first definition counts",
                kind=identity.kind.name,
                object="/".join(identity.key),
                ignored_in=path.name,
            )
        self._duplicates = duplicates
        lists: dict[Collection, list[meta.Object]] = {collection: [] for collection in self._collections}
        for (kind, key), item in found.items():
            for namespace in ("", key[0]):
                collection = Collection(kind, namespace)
                if collection in lists:
                    lists[collection].append(item)
        return lists

    def _read_all(self) -> dict[Path, File]:
        """Every file of the directory, in the order of their names; unchanged ones are not read again."""
        files: dict[Path, File] = {}
        for path in sorted(self._directory.iterdir()):
            if path.suffix not in SUFFIXES or path.name.startswith("."):
                continue
            file = read(path, self._files.get(path, File()), self._kinds)
            if file is not None:
                files[path] = file
        return files


async def _in_daemon_thread(function: Callable[[], T]) -> T:
    """Calls a function in a thread that does not keep the process from ending.

    A read from a network file system may hang for ever; the threads of ``asyncio.to_thread`` are joined at exit.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: Exception | None) -> None:
        if result.done():  # it was cancelled
            return
        if error is not None:
            result.set_exception(error)
        else:
            result.set_result(cast("T", value))

    def call() -> None:
        value, error = None, None
        try:
            value = function()
        except Exception as raised:  # noqa: BLE001 - the caller gets it
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, value, error)

    threading.Thread(target=call, name="reads files", daemon=True).start()
    return await result
