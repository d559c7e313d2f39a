"""What one file holds: its last good objects, and why it can't be read now.

Whatever is wrong with a file harms no other file. Reading blocks, so it belongs in a thread. This module must not know
what the objects mean, nor which kinds there are.
"""

import os
import stat
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from xds_server import metrics
from xds_server.errors import MalformedObjectError
from xds_server.files import parsing
from xds_server.objects import documents, meta, policy
from xds_server.objects.documents import Identity
from xds_server.objects.fields import unknown_fields
from xds_server.objects.kinds import GRPC_BACKEND_POLICY

log = structlog.get_logger()

MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_REASON_LENGTH = 500


@dataclass(frozen=True, slots=True)
class File:
    """What was last read of a file.

    Attributes:
        stamp: Another stamp means another content; None if there is none yet.
        items: Its last good objects.
        problem: Why it could not be read or parsed; empty if it could.
        retry: Whether to read it again although its stamp is the same.
    """

    stamp: tuple[int, ...] | None = None
    items: tuple[tuple[Identity, meta.Object], ...] = ()
    problem: str = ""
    retry: bool = False


def read(path: Path, known: File, kinds: documents.Kinds) -> File | None:
    """Returns a file as it is now, or None if it is gone; what can't be read of it keeps its last valid version.

    Logs and counts a problem once, until the file or the problem changes.

    Args:
        path: The file.
        known: What was last read of it; returned if nothing changed.
        kinds: The kinds to look for.
    """
    stamp: tuple[int, ...] | None = None
    try:
        status = path.stat()
        stamp = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
        if stamp == known.stamp and not known.retry:
            return known
        items = _items(path, _parse(path, status, kinds), known, kinds)
    except Exception as error:  # noqa: BLE001 - PyYAML raises errors of any type, and a file must only harm itself
        if isinstance(error, FileNotFoundError) and _is_gone(path):
            return None
        problem = _reason(error)
        if (stamp, problem) != (known.stamp, known.problem):
            metrics.malformed.labels("file").inc()
            log.warning(
                "file can't be read; its last good objects stay served",
                file=path.name,
                reason=problem,
                objects_kept=len(known.items),
            )
        # What the system refuses may be allowed later without a trace in the file's status.
        return File(stamp, known.items, problem, retry=isinstance(error, OSError))
    if known.problem:
        log.info("file can be read again", file=path.name, objects=len(items))
    return File(stamp, items)


def _is_gone(path: Path) -> bool:
    """Whether there is no such name; a symbolic link whose target is missing is not gone."""
    try:
        path.lstat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def _reason(error: Exception) -> str:
    """An error in one short line; the text of some, such as KeyError, says nothing without their type."""
    known = isinstance(error, MalformedObjectError | OSError)
    return textwrap.shorten(
        str(error) if known else f"{type(error).__name__}: {error}", MAX_REASON_LENGTH, placeholder=" ..."
    )


def _items(
    path: Path, found: list[dict[str, Any]], known: File, kinds: documents.Kinds
) -> tuple[tuple[Identity, meta.Object], ...]:
    """Decodes documents; a malformed one keeps its last valid version."""
    kept = dict(known.items)
    items: list[tuple[Identity, meta.Object]] = []
    for document in found:
        identity = documents.identity(document, kinds)
        try:
            items.append((identity, documents.convert(document, kinds)))
            _warn_of_unknown_fields(path, identity, document)
        except MalformedObjectError as error:
            metrics.malformed.labels("object").inc()
            before = kept.get(identity)
            if before is None and identity.kind is GRPC_BACKEND_POLICY:
                # What a security policy is to protect would be open to all without it.
                before = policy.salvage(document, str(error))
            log.warning(
                "object is malformed; keeping its last valid version",
                file=path.name,
                reason=str(error),
                kept=before is not None,
            )
            if before is not None:
                items.append((identity, before))
    return tuple(items)


def _warn_of_unknown_fields(path: Path, identity: Identity, document: dict[str, Any]) -> None:
    found = unknown_fields(identity.kind, document)
    if found:
        log.warning(
            "object has fields that its kind does not have; they are ignored",
            file=path.name,
            kind=identity.kind.name,
            object="/".join(identity.key),
            fields=", ".join(map(str, found)),
            hint="correct their names or delete them; the API server would reject them",
        )


def _parse(path: Path, status: os.stat_result, kinds: documents.Kinds) -> list[dict[str, Any]]:
    """The documents of one file that are of known kinds.

    Raises:
        OSError: It can't be read.
        Exception: It does not parse, or holds something else than Kubernetes objects.
    """
    if not stat.S_ISREG(status.st_mode):
        raise MalformedObjectError("it is not a regular file")
    if status.st_size == 0:
        # An editor that truncates before it writes must not take the objects away for a moment.
        raise MalformedObjectError("it is empty; delete it to remove its objects")
    parse = parsing.parse_json if path.suffix == ".json" else parsing.parse_yaml
    return parse(_contents(path), kinds)


def _contents(path: Path) -> bytes:
    """The bytes of a file, which may have grown since its size was read, or be a pipe by now."""
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123 - of a descriptor
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise MalformedObjectError(f"it has more than {MAX_FILE_BYTES} bytes")
    return data
