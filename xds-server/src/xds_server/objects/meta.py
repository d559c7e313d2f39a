"""What objects of every kind have in common, and the envelopes in which the API sends them.

Only the fields named here are read; msgspec skips everything else without building it, so whole clusters decode in a
fraction of the time and memory that general models take.
"""

import datetime as dt
from typing import Any, ClassVar, TypeVar

import msgspec

from xds_server.errors import MalformedObjectError

DEFAULT_NAMESPACE = "default"

Key = tuple[str, str]
"""(namespace, name): the identity of an object among those of its kind."""


class Struct(msgspec.Struct, rename="camel", frozen=True):
    """Base of all structs: camelCase fields, as the API spells them.

    Attributes:
        unread: The fields of the API that the struct leaves out; complete for kinds whose status is written.
    """

    unread: ClassVar[frozenset[str]] = frozenset()


class Metadata(Struct, frozen=True):
    """meta/v1 ObjectMeta, without what differs between objects of equal content (resourceVersion and the like)."""

    unread: ClassVar[frozenset[str]] = frozenset(
        (
            *(
                "annotations",
                "creationTimestamp",
                "deletionGracePeriodSeconds",
                "deletionTimestamp",
                "finalizers",
            ),
            *(
                "generateName",
                "generation",
                "managedFields",
                "ownerReferences",
                "resourceVersion",
                "selfLink",
                "uid",
            ),
        )
    )

    name: str
    namespace: str | None = None
    labels: dict[str, str | None] | None = None


class Object(Struct, frozen=True):
    """An object of any kind."""

    unread: ClassVar[frozenset[str]] = frozenset({"apiVersion", "kind"})

    metadata: Metadata


class IdentifiedMetadata(Metadata, frozen=True):
    """meta/v1 ObjectMeta of objects that Events are about: `kubectl describe` finds Events by uid."""

    uid: str = ""


class TrackedMetadata(IdentifiedMetadata, frozen=True):
    """meta/v1 ObjectMeta of objects whose status is written.

    Attributes:
        generation: Counts the changes of the spec; 0 in files, which have none.
        resource_version: Of the object that was read; a write that carries it fails if the object has changed since.
        created: As it was read: a text, nothing (None) in most files, or what YAML makes of a time.
    """

    generation: int = 0
    resource_version: str = ""
    created: Any = msgspec.field(default=None, name="creationTimestamp")

    @property
    def creation_timestamp(self) -> str:
        """RFC 3339; empty if unknown."""
        if isinstance(self.created, dt.datetime):
            # YAML makes a time without an offset of one in UTC.
            aware = self.created.tzinfo is not None
            utc = self.created.astimezone(dt.UTC) if aware else self.created
            return utc.strftime("%Y-%m-%dT%H:%M:%SZ")
        if isinstance(self.created, dt.date):
            return self.created.strftime("%Y-%m-%dT00:00:00Z")
        return self.created if isinstance(self.created, str) else ""


class Tracked(Object, frozen=True):
    """An object whose status is written.

    Attributes:
        status: As it was read, with all fields: entries of other controllers must be kept as they are.
    """

    metadata: TrackedMetadata
    status: dict[str, Any] | None = None


class ListMetadata(Struct, frozen=True):
    """meta/v1 ListMeta."""

    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class Page(Struct, frozen=True):
    """One page of a LIST; items stay encoded so that a malformed one harms only itself."""

    metadata: ListMetadata
    items: list[msgspec.Raw] | None = None


class WatchEvent(Struct, frozen=True):
    """meta/v1 WatchEvent."""

    type: str
    object: msgspec.Raw


class Versioned(Struct, frozen=True):
    """The part of an object in a watch event that every event has: the version at which to resume."""

    class Metadata(Struct, frozen=True):
        """The one field."""

        resource_version: str = ""

    metadata: Metadata


class Status(Struct, frozen=True):
    """meta/v1 Status: why the API refused a request."""

    message: str = ""
    code: int = 0


T = TypeVar("T")

_decoders: dict[type, msgspec.json.Decoder[Any]] = {}


def decode(data: bytes | msgspec.Raw, struct: type[T]) -> T:
    """Decodes JSON into a struct.

    Raises:
        MalformedObjectError: It is not JSON, or does not have that shape; the text names the field.
    """
    decoder = _decoders.get(struct)
    if decoder is None:
        decoder = _decoders[struct] = msgspec.json.Decoder(struct)
    try:
        value: T = decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedObjectError(str(error)) from error
    return value


def key(item: Object) -> Key:
    """The identity of an object among those of its kind."""
    return item.metadata.namespace or DEFAULT_NAMESPACE, item.metadata.name


def key_of(data: bytes | msgspec.Raw) -> Key | None:
    """The identity of an encoded object that may be malformed otherwise; None if even that can't be read."""
    try:
        return key(decode(data, Object))
    except MalformedObjectError:
        return None
