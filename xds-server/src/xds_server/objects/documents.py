"""Objects from parsed YAML or JSON documents, such as those of a file."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from xds_server.errors import MalformedObjectError
from xds_server.objects.kinds import Kind
from xds_server.objects.meta import DEFAULT_NAMESPACE, Key, Object

Kinds = Mapping[tuple[str, str], Kind]
"""Kinds by (apiVersion, kind)."""


class Identity(NamedTuple):
    """Which object a document is, as far as that can be read."""

    kind: Kind
    key: Key


def flatten(document: object, kinds: Kinds) -> Iterator[dict[str, Any]]:
    """Yields the documents of known kinds in a document, not decoded yet: a List has several, an unknown kind none.

    Raises:
        MalformedObjectError: It is not a Kubernetes object.
    """
    if not isinstance(document, dict):
        raise MalformedObjectError(f"expected a Kubernetes object, got {type(document).__name__}")
    version, kind = document.get("apiVersion"), document.get("kind")
    if not isinstance(version, str) or not isinstance(kind, str):
        raise MalformedObjectError("expected a Kubernetes object, with apiVersion and kind")
    if not kind.endswith("List"):
        if (version, kind) in kinds:
            yield document
        return
    items = document.get("items") or []
    if not isinstance(items, list):
        raise MalformedObjectError(f"items of a {kind} must be a list")
    # Items of a ServiceList need not repeat the apiVersion and kind that the list implies.
    implied = {} if kind == "List" else {"apiVersion": version, "kind": kind.removesuffix("List")}
    for item in items:
        yield from flatten({**implied, **item} if isinstance(item, dict) else item, kinds)


def convert(document: Mapping[str, Any], kinds: Kinds) -> Object:
    """Decodes one of the documents that ``flatten`` found.

    Raises:
        MalformedObjectError: It does not have its kind's shape; the text names the object and the field.
    """
    kind, (namespace, name) = identity(document, kinds)
    try:
        return msgspec.convert(document, kind.type)
    except (msgspec.ValidationError, RecursionError) as error:
        raise MalformedObjectError(f"{kind.name} {namespace}/{name}: {error}") from error


def identity(document: Mapping[str, Any], kinds: Kinds) -> Identity:
    """Kind and key of one of the documents that ``flatten`` found, as far as they can be read."""
    metadata = document.get("metadata")
    known = metadata if isinstance(metadata, dict) else {}
    key = str(known.get("namespace") or DEFAULT_NAMESPACE), str(known.get("name") or "?")
    return Identity(kinds[document["apiVersion"], document["kind"]], key)
