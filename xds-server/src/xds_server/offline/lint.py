"""Everything that the server would refuse, drop or warn of in files. Pure, but for what ``reading`` reads.

The files may be a part of what is on a cluster. So a Service that a route or policy names and that is in no file is
assumed to be there, with the ports that are asked for: that is a note, and all the rest is judged as usual.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from xds_server.errors import MalformedObjectError
from xds_server.mesh.statuses import Condition
from xds_server.objects import documents, meta
from xds_server.objects.documents import Identity
from xds_server.objects.fields import unknown_fields
from xds_server.objects.gateway import GRPCRoute
from xds_server.objects.kinds import GRPC_ROUTE, SERVICE
from xds_server.objects.policy import GRPCBackendPolicy
from xds_server.offline.mesh import assemble
from xds_server.offline.reading import BY_NAME, Document, Unreadable

_BAD = {"Accepted": False, "ResolvedRefs": False, "Programmed": False, "PartiallyInvalid": True}
"""Conditions that say that something is wrong, each with the status that says so."""
_FIELD = re.compile(r"[A-Za-z]\w*(?:\[\d+\])*(?:\.\w+(?:\[\d+\])*)*")
"""What may be the path of a field in the text of a message."""
_MAX_WORDS = 20
_ASSUMED_PORT = 60_000
"""The first number for ports that are known by name alone."""


class Level(Enum):
    """How bad it is."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"
    """Nothing is wrong with the files, as far as they tell."""


class Finding(NamedTuple):
    """One thing that is wrong.

    Attributes:
        file: Where.
        line: In the file.
        level: How bad it is.
        object: Kind, namespace and name; empty if that can't be read.
        message: What is wrong and what to do.
    """

    file: str
    line: int
    level: Level
    object: str
    message: str


def lint(read: Iterable[Document | Unreadable]) -> list[Finding]:
    """Returns what is wrong with what was read, in the order of the files."""
    findings: list[Finding] = []
    versions: dict[Identity, list[_Version]] = {}
    files: dict[str, None] = {}
    for each in read:
        files[each.file] = None
        if isinstance(each, Unreadable):
            findings.append(Finding(each.file, each.line, Level.ERROR, "", each.reason))
            continue
        identity = documents.identity(each.content, BY_NAME)
        findings += _fields(each, identity)
        findings += _duplicates(each, identity, versions.get(identity, ()))
        try:
            item = documents.convert(each.content, BY_NAME)
        except MalformedObjectError as error:
            findings.append(_finding(each, identity, Level.ERROR, str(error).partition(": ")[2]))
        else:
            versions.setdefault(identity, []).append(_Version(each, item))
    # Folders often hold variants of an object. Each is judged together with the first version of all others.
    for number in range(max(map(len, versions.values()), default=0)):
        findings += _judge({key: found[min(number, len(found) - 1)] for key, found in versions.items()})
    order = {file: place for place, file in enumerate(files)}
    return sorted(dict.fromkeys(findings), key=lambda each: (order[each.file], each.line))


class _Version(NamedTuple):
    """One document of an object, and what it was decoded to."""

    document: Document
    item: meta.Object


def _duplicates(document: Document, identity: Identity, others: Iterable[_Version]) -> Iterator[Finding]:
    """Yields a finding if the server would find the same object twice in a folder."""
    for other in others:
        if Path(other.document.file).parent == Path(document.file).parent:
            text = (
                f"{other.document.file}:{other.document.line('')} is the same object; of one folder, the server uses "
                "one of them alone"
            )
            yield _finding(document, identity, Level.WARNING, text)
            return


def _judge(versions: Mapping[Identity, _Version]) -> Iterator[Finding]:
    """Yields what the server says about objects that are all there at once."""
    objects = {identity: version.item for identity, version in versions.items()}
    assumed = _assumed(objects)
    store, _ = assemble([*objects.items(), *assumed.items()])
    by_name = {(identity.kind.name, identity.key): identity for identity in versions}
    stated = set()
    for kind, key, status in store.statuses:
        identity = by_name[kind.name, key]
        stated.add(identity)
        for entry in status.entries:
            for condition in entry.conditions:
                if _BAD.get(condition.type) is condition.status:
                    # What is named may be on the cluster, and not in the files.
                    level = Level.NOTE if condition.reason == "TargetNotFound" else Level.ERROR
                    refs = "spec.parentRefs" if kind is GRPC_ROUTE else "spec.targetRefs"
                    yield _finding(versions[identity].document, identity, level, _text(condition), refs)
    for problem in store.problems:
        known = by_name.get((problem.kind, problem.key))
        if known is not None and known not in stated:
            yield _finding(versions[known].document, known, Level.ERROR, problem.reason)
    for identity, item in objects.items():
        for service in sorted({_identity(ref).key for ref in _references(identity, item)}):
            if Identity(SERVICE, service) in assumed:
                text = f"Service {'/'.join(service)} is in none of the files; it has to be on the cluster"
                yield _finding(versions[identity].document, identity, Level.NOTE, text)


def _fields(document: Document, identity: Identity) -> Iterator[Finding]:
    for found in unknown_fields(identity.kind, document.content):
        text = f"there is no field {found}"
        yield Finding(document.file, document.line(found.path), Level.ERROR, _name(identity), text)


def _finding(
    document: Document, identity: Identity, level: Level, message: str, otherwise: str = ""
) -> Finding:
    """A finding at the line of the field that the message names, else at that of another field."""
    path = _path(document, message) or otherwise
    return Finding(document.file, document.line(path), level, _name(identity), message)


def _path(document: Document, message: str) -> str:
    """The field that a message names, in one word or several: ``rules[0]: matches[1].method: ...``; else empty."""
    path = ""
    for word in islice(_FIELD.findall(message), _MAX_WORDS):
        candidates = (f"{path}.{word}",) if path else (word, f"spec.{word}")
        path = next((candidate for candidate in candidates if candidate in document.lines), path)
    return path


def _name(identity: Identity) -> str:
    return f"{identity.kind.name} {'/'.join(identity.key)}"


def _text(condition: Condition) -> str:
    return f"{condition.message} ({condition.type}={condition.status}, {condition.reason})"


# ---- Services that are named and in no file ----


class _Reference(NamedTuple):
    """A Service that is named, and the port, by number or name."""

    namespace: str
    name: str
    port: int | None
    port_name: str | None


def _references(identity: Identity, item: meta.Object) -> Iterator[_Reference]:
    """Yields the Services that an object names."""
    namespace = identity.key[0]
    match item:
        case GRPCRoute():
            for parent in item.spec.parent_refs or ():
                if parent.kind == "Service":
                    yield _Reference(
                        parent.namespace or namespace, parent.name, parent.port, parent.section_name
                    )
            for rule in item.spec.rules or ():
                for backend in rule.backend_refs or ():
                    if backend.kind in (None, "Service"):
                        yield _Reference(backend.namespace or namespace, backend.name, backend.port, None)
        case GRPCBackendPolicy():
            for target in item.spec.target_refs or ():
                if target.kind == "Service":
                    yield _Reference(namespace, target.name, None, target.section_name)


def _identity(reference: _Reference) -> Identity:
    return Identity(SERVICE, (reference.namespace, reference.name))


def _assumed(objects: Mapping[Identity, meta.Object]) -> dict[Identity, meta.Object]:
    """The Services that objects name and that are none of them, with the ports that are named."""
    ports: dict[Identity, dict[tuple[int | None, str | None], None]] = {}
    for identity, item in objects.items():
        for reference in _references(identity, item):
            if (service := _identity(reference)) not in objects:
                ports.setdefault(service, {})[reference.port, reference.port_name] = None
    return {service: _service(service, list(wanted)) for service, wanted in ports.items()}


def _service(identity: Identity, wanted: Iterable[tuple[int | None, str | None]]) -> meta.Object:
    namespace, name = identity.key
    listed: list[dict[str, Any]] = [
        {"name": port_name or f"port-{number or index}", "port": number or _ASSUMED_PORT + index}
        for index, (number, port_name) in enumerate(wanted)
    ]
    unique = {port["port"]: port for port in listed}.values()
    document = {
        "apiVersion": SERVICE.api_version,
        "kind": SERVICE.name,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"ports": list(unique)},
    }
    return documents.convert(document, BY_NAME)
