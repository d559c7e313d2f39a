"""The state of the mesh from a folder of YAML and JSON files that hold the same Kubernetes objects.

Follows changes by file notifications, and looks at everything again at every poll. A file that stops parsing keeps
its last good objects; a file that is deleted takes its objects with it. Reading blocks, so it runs in a thread.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import watchfiles
import yaml
from watchfiles._rust_notify import WatchfilesRustInternalError

from servicekit.errors import ConfigurationError
from xds_server import metrics
from xds_server.discovery import objects
from xds_server.discovery.registry import Changes, Collection, Registry
from xds_server.errors import MalformedObjectError

log = structlog.get_logger()

SUFFIXES = frozenset({".yaml", ".yml", ".json"})
MAX_FILE_BYTES = 64 * 1024 * 1024
GATHER_MILLISECONDS = 20
"""How long to gather notifications, so that a tool that writes several files causes one change."""
LOOK_MILLISECONDS = 1000
"""How long to wait for a notification at a time."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Identity = tuple[type[objects.Object], objects.Key]
_COLLECTIONS: tuple[Collection, Collection] = ((objects.Service, ""), (objects.EndpointSlice, ""))


@dataclass(slots=True)
class _File:
    """What was last read of a file.

    Attributes:
        stamp: Modification time and size, inode: another stamp, another content.
        items: Its last good objects.
    """

    stamp: tuple[int, int, int]
    items: list[objects.Object]


class FilesSource:
    """Reads services and endpoint slices from a folder.

    Args:
        publish: Takes the services that changed.
        directory: The folder; files in folders below it do not count.
        poll_interval: Seconds from one look at everything to the next.
        watch: Whether to follow file notifications in between.

    Raises:
        ConfigurationError: There is no such folder.
    """

    def __init__(
        self, publish: Callable[[Changes], None], *, directory: Path, poll_interval: float, watch: bool
    ) -> None:
        if not directory.is_dir():
            raise ConfigurationError(f"DISCOVERY_DIR={directory}: no such folder; make it, or name another")
        self.registry = Registry(_COLLECTIONS, publish)
        self._directory = directory
        self._poll_interval = poll_interval
        self._watch = watch
        self._files: dict[Path, _File] = {}
        self._confirmed = float("-inf")
        self._unreadable = False
        self._doubled: set[_Identity] = set()

    def age(self) -> float:
        """Seconds since the folder was last read; infinite before the first time."""
        return time.monotonic() - self._confirmed

    async def run(self) -> None:
        """Reads now, after each notification, and at every poll."""
        log.info("discovering from files", directory=str(self._directory), watch=self._watch)
        while True:
            await self._scan()
            due = time.monotonic() + self._poll_interval
            if self._watch and self._directory.is_dir():
                try:
                    await self._follow(due)
                except (OSError, WatchfilesRustInternalError) as error:
                    # Such as a system that has no more file notifications to give.
                    log.warning("no file notifications; the polls go on", reason=str(error))
            await asyncio.sleep(max(0, due - time.monotonic()))

    async def _follow(self, due: float) -> None:
        """Reads after each notification until the next poll is due."""
        notifications = watchfiles.awatch(
            self._directory,
            step=GATHER_MILLISECONDS,
            debounce=10 * GATHER_MILLISECONDS,
            recursive=False,
            rust_timeout=LOOK_MILLISECONDS,
            yield_on_timeout=True,
        )
        # What changed between the scan before this and the start of the notifications would go unseen.
        unseen = True
        async for changes in notifications:
            if changes or unseen:
                unseen = False
                await self._scan()
            if time.monotonic() >= due:
                return

    async def _scan(self) -> None:
        """Reads what changed, and passes everything on."""
        try:
            files = await asyncio.to_thread(self._read_all)
        except OSError as error:
            if not self._unreadable:
                log.warning("the folder can't be read; what is known stays served", reason=str(error))
            self._unreadable = True
            return
        self._unreadable = False
        self._files = files
        self._confirmed = time.monotonic()
        found: dict[_Identity, objects.Object] = {}
        doubled: set[_Identity] = set()
        for path, file in files.items():
            for item in file.items:
                identity = (type(item), objects.key(item))
                if identity in found:
                    doubled.add(identity)
                    if identity not in self._doubled:
                        where = "/".join(identity[1])
                        log.warning(
                            "object stands in two places; the first counts", object=where, second=path.name
                        )
                found.setdefault(identity, item)
        self._doubled = doubled
        self.registry.replace(
            {
                collection: [item for (kind, _), item in found.items() if kind is collection[0]]
                for collection in _COLLECTIONS
            }
        )

    def _read_all(self) -> dict[Path, _File]:
        """Every file of the folder, in the order of their names; unchanged ones are not read again."""
        files: dict[Path, _File] = {}
        for path in sorted(self._directory.iterdir()):
            if path.suffix not in SUFFIXES or path.name.startswith("."):
                continue
            try:
                files[path] = _read(path, self._files.get(path))
            except FileNotFoundError:
                continue
        return files


def _read(path: Path, known: _File | None) -> _File:
    """A file as it is now; what of it can't be understood stays as it was last understood."""
    status = path.stat()
    stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
    if known is not None and known.stamp == stamp:
        return known
    kept = {(type(item), objects.key(item)): item for item in known.items} if known else {}
    try:
        documents = _parse(path, status.st_size)
    except FileNotFoundError:
        raise
    except (MalformedObjectError, OSError) as error:
        metrics.malformed.labels("file").inc()
        log.warning("file can't be understood", file=path.name, reason=str(error), objects_kept=len(kept))
        return _File(stamp, list(kept.values()))
    items: list[objects.Object] = []
    for document in documents:
        try:
            items.append(objects.convert(document))
        except MalformedObjectError as error:
            metrics.malformed.labels("object").inc()
            before = kept.get(objects.identity(document))
            log.warning("object is malformed", file=path.name, reason=str(error), kept=before is not None)
            if before is not None:
                items.append(before)
    return _File(stamp, items)


def _parse(path: Path, size: int) -> list[dict[str, Any]]:
    """The documents of one file that are of a kind that matters.

    Raises:
        MalformedObjectError: It does not parse, or holds something else than Kubernetes objects.
        OSError: It can't be read.
    """
    if size == 0:
        # An editor that truncates before it writes must not take the objects away for a moment.
        raise MalformedObjectError("it is empty; delete it to remove its objects")
    if size > MAX_FILE_BYTES:
        raise MalformedObjectError(f"it has {size} bytes; at most {MAX_FILE_BYTES} are read")
    try:
        documents = list(yaml.load_all(path.read_text(encoding="utf-8"), Loader=_Loader))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedObjectError(" ".join(str(error).split())) from error
    return [item for document in documents if document is not None for item in objects.flatten(document)]
