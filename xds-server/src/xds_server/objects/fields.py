"""Fields of a document that its kind does not have, such as ``retries`` for ``retry``.

The API server rejects them or warns of them, and drops them; nothing does so for files. Decoding ignores them, as a
newer API may have more fields. Only kinds that users write for this server are described completely enough to tell:
those whose status is written.
"""

import itertools
import typing
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from xds_server.objects.kinds import Kind
from xds_server.objects.meta import Struct, Tracked

MAX_FIELDS = 20
"""Unknown fields that are found in one document; a file may have any number."""
_MAX_NAME = 100


class UnknownField(NamedTuple):
    """A field that a kind does not have.

    Attributes:
        path: Where it is, such as ``spec.rules[0].match``.
        suggestion: The name of the field there that is most like it; empty if none is.
    """

    path: str
    suggestion: str

    def __str__(self) -> str:
        return f"{self.path} (did you mean {self.suggestion}?)" if self.suggestion else self.path


def unknown_fields(kind: Kind, document: Mapping[str, Any]) -> list[UnknownField]:
    """Returns the first fields of a document that its kind does not have; none for kinds that are read in part alone."""
    if not issubclass(kind.type, Tracked):
        return []
    return list(itertools.islice(_unknown(kind.type, document, ""), MAX_FIELDS))


def _unknown(struct: type[Struct], value: object, path: str) -> Iterator[UnknownField]:
    """The unknown fields of a value that should have the shape of a struct, or be a list of such."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unknown(struct, item, f"{path}[{index}]")
    elif isinstance(value, dict):
        known = _fields(struct)
        for name, item in value.items():
            place = f"{path}.{name}" if path else str(name)
            if name not in known:
                yield UnknownField(place[: len(path) + _MAX_NAME], _nearest(name, known))
            elif inner := known[name]:
                yield from _unknown(inner, item, place)


@lru_cache(maxsize=256)
def _fields(struct: type[Struct]) -> Mapping[str, type[Struct] | None]:
    """The fields of a struct, each with the struct that it holds or (None) nothing that is described here."""
    read = {field.encode_name: _struct(field.type) for field in msgspec.structs.fields(struct)}
    return dict.fromkeys(struct.unread) | read


def _struct(annotation: Any) -> type[Struct] | None:
    """The struct in a type such as ``tuple[Struct, ...] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, Struct):
        return annotation
    return next(filter(None, map(_struct, typing.get_args(annotation))), None)


def _nearest(name: object, known: Iterable[str]) -> str:
    """The known name with the fewest edits, whatever its case; empty if that is more than half of the name."""
    if not isinstance(name, str) or len(name) > _MAX_NAME:
        return ""
    plain = name.lower().replace("_", "")
    edits, nearest = min((_edits(plain, field.lower()), field) for field in known)
    return nearest if edits <= len(plain) // 2 else ""


def _edits(one: str, other: str) -> int:
    """The Levenshtein distance of two names: characters to add, remove or replace."""
    row = list(range(len(other) + 1))
    for count, character in enumerate(one, 1):
        before, row = row, [count]
        for place, wanted in enumerate(other):
            row.append(min(before[place + 1] + 1, row[place] + 1, before[place] + (character != wanted)))
    return row[-1]
