"""Kubernetes objects from a directory of YAML and JSON files, kept up to date in a store.

Follows changes by file notifications, and scans the directory again at every poll. A file that can't be read or parsed
keeps its last good objects and harms no other file; a file that is deleted takes its objects with it. Reading blocks,
so it runs in a thread. This module must not know what the objects mean, nor which kinds there are.
"""

import asyncio
import codecs
import contextlib
import os
import stat
import time
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import structlog
import watchfiles
import yaml

from servicekit.errors import ConfigurationError
from xds_server import metrics
from xds_server.errors import MalformedObjectError
from xds_server.objects import documents, meta
from xds_server.objects.documents import Identity
from xds_server.objects.kinds import Collection
from xds_server.source import Target

log = structlog.get_logger()

SUFFIXES = frozenset({".yaml", ".yml", ".json"})
MAX_FILE_BYTES = 64 * 1024 * 1024
GATHER_MILLISECONDS = 20
"""How long to gather notifications, so that a tool that writes several files causes one change."""
LOOK_MILLISECONDS = 1000
"""How long to wait for a notification at a time."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class _File:
    """What was last read of a file.

    Attributes:
        stamp: Another stamp means another content; None if it has to be read again in any case.
        items: Its last good objects.
        problem: Why it could not be read or parsed; empty if it could.
    """

    stamp: tuple[int, ...] | None = None
    items: tuple[tuple[Identity, meta.Object], ...] = ()
    problem: str = ""


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
        self._files: dict[Path, _File] = {}
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
            if self._watch and self._directory.is_dir():
                async with contextlib.aclosing(self._notifications()) as notifications:
                    async for changed in notifications:
                        if changed:
                            await self._scan()
                        if time.monotonic() >= due:
                            break
            await asyncio.sleep(max(0, due - time.monotonic()))

    async def _notifications(self) -> AsyncGenerator[bool, None]:
        """Yields now and then, and whether something may have changed since; ends if there are no notifications."""
        # Changes between the scan before this and the start of the notifications would go unnoticed.
        first = True
        try:
            notifications = watchfiles.awatch(
                self._directory,
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
            files = await asyncio.to_thread(self._read_all)
        except OSError as error:
            if not self._unreadable:
                log.warning(
                    "directory can't be read; serving the last known state",
                    directory=str(self._directory),
                    reason=str(error),
                )
            self._unreadable = True
            return
        self._unreadable = False
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

    def _read_all(self) -> dict[Path, _File]:
        """Every file of the directory, in the order of their names; unchanged ones are not read again."""
        files: dict[Path, _File] = {}
        for path in sorted(self._directory.iterdir()):
            if path.suffix not in SUFFIXES or path.name.startswith("."):
                continue
            with contextlib.suppress(FileNotFoundError):
                files[path] = self._read(path, self._files.get(path, _File()))
        return files

    def _read(self, path: Path, known: _File) -> _File:
        """A file as it is now; what of it can't be read stays as it was last understood.

        Raises:
            FileNotFoundError: It is gone.
        """
        stamp: tuple[int, ...] | None = None
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
            if stamp == known.stamp:
                return known
            found = _parse(path, status, self._kinds)
        except FileNotFoundError:
            raise
        except (MalformedObjectError, OSError) as error:
            problem = str(error)
            if problem != known.problem or stamp != known.stamp:
                metrics.malformed.labels("file").inc()
                log.warning(
                    "file can't be read; its last good objects stay served",
                    file=path.name,
                    reason=problem,
                    objects_kept=len(known.items),
                )
            # What the system refuses may be allowed later without a trace in the file's status.
            return _File(None if isinstance(error, OSError) else stamp, known.items, problem)
        kept = dict(known.items)
        items: list[tuple[Identity, meta.Object]] = []
        for document in found:
            identity = documents.identity(document, self._kinds)
            try:
                items.append((identity, documents.convert(document, self._kinds)))
            except MalformedObjectError as error:
                metrics.malformed.labels("object").inc()
                before = kept.get(identity)
                log.warning(
                    "object is malformed; it stays as it was last understood",
                    file=path.name,
                    reason=str(error),
                    kept=before is not None,
                )
                if before is not None:
                    items.append((identity, before))
        return _File(stamp, tuple(items))


def _parse(path: Path, status: os.stat_result, kinds: documents.Kinds) -> list[dict[str, Any]]:
    """The documents of one file that are of known kinds.

    Raises:
        MalformedObjectError: It does not parse, or holds something else than Kubernetes objects.
        OSError: It can't be read.
    """
    if not stat.S_ISREG(status.st_mode):
        raise MalformedObjectError("it is not a regular file")
    if status.st_size == 0:
        # An editor that truncates before it writes must not take the objects away for a moment.
        raise MalformedObjectError("it is empty; delete it to remove its objects")
    data = _contents(path)
    try:
        if path.suffix == ".json":
            parsed = [msgspec.json.decode(data.removeprefix(codecs.BOM_UTF8))]
        else:
            parsed = list(yaml.load_all(data.decode(), Loader=_Loader))
        return [item for each in parsed if each is not None for item in documents.flatten(each, kinds)]
    except (yaml.YAMLError, msgspec.DecodeError, ValueError, OverflowError, RecursionError) as error:
        # YAML's dates and numbers raise what Python's raise.
        raise MalformedObjectError(" ".join(str(error).split())) from error


def _contents(path: Path) -> bytes:
    """The bytes of a file, which may have grown since its size was read, or be a pipe by now."""
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123 - of a descriptor
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise MalformedObjectError(f"it has more than {MAX_FILE_BYTES} bytes")
    return data
