"""The fields of Kubernetes objects that matter here, decoded once and strictly at the edge.

Only what is named here is read; everything else in an object is skipped without being built, which is why whole
clusters decode in a fraction of the time and memory that general models take. Fields that the API declares
optional are optional here: https://kubernetes.io/docs/reference/kubernetes-api/service-resources/
Nothing here says what the fields mean; ``assembly`` does.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from xds_server.errors import MalformedObjectError
from xds_server.model import ServiceName

SERVICE_NAME_LABEL = "kubernetes.io/service-name"


class _Struct(msgspec.Struct, rename="camel", frozen=True):
    pass


class Metadata(_Struct, frozen=True):
    """Identity; resourceVersion and the like are left out so that equal content compares equal."""

    name: str
    namespace: str | None = None
    labels: dict[str, str | None] | None = None


class ServicePort(_Struct, frozen=True):
    """core/v1 ServicePort."""

    port: int
    name: str | None = None
    protocol: str | None = None
    app_protocol: str | None = None


class ServiceSpec(_Struct, frozen=True):
    """core/v1 ServiceSpec."""

    ports: tuple[ServicePort, ...] | None = None
    type: str | None = None
    ip_families: tuple[str, ...] | None = None


class Service(_Struct, frozen=True):
    """core/v1 Service."""

    metadata: Metadata
    spec: ServiceSpec | None = None


class Conditions(_Struct, frozen=True):
    """discovery.k8s.io/v1 EndpointConditions: nil means unknown."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class TargetRef(_Struct, frozen=True):
    """core/v1 ObjectReference: the pod behind an endpoint."""

    kind: str | None = None
    namespace: str | None = None
    name: str | None = None
    uid: str | None = None


class SliceEndpoint(_Struct, frozen=True):
    """discovery.k8s.io/v1 Endpoint. Its addresses are fungible: consumers may use the first alone."""

    addresses: tuple[str, ...] | None = None
    conditions: Conditions | None = None
    target_ref: TargetRef | None = None
    zone: str | None = None


class SlicePort(_Struct, frozen=True):
    """discovery.k8s.io/v1 EndpointPort."""

    name: str | None = None
    protocol: str | None = None
    port: int | None = None


class EndpointSlice(_Struct, frozen=True):
    """discovery.k8s.io/v1 EndpointSlice."""

    metadata: Metadata
    address_type: str
    endpoints: tuple[SliceEndpoint, ...] | None = None
    ports: tuple[SlicePort, ...] | None = None

    @property
    def service_name(self) -> ServiceName | None:
        """The service that the slice belongs to, if it says so."""
        name = (self.metadata.labels or {}).get(SERVICE_NAME_LABEL)
        return ServiceName(self.metadata.namespace or "default", name) if name else None


Object = Service | EndpointSlice
Key = tuple[str, str]
"""(namespace, name)"""


class ListMetadata(_Struct, frozen=True):
    """meta/v1 ListMeta."""

    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class Page(_Struct, frozen=True):
    """One page of a LIST; the items stay encoded so that a malformed one harms only itself."""

    metadata: ListMetadata
    items: list[msgspec.Raw] | None = None


class WatchEvent(_Struct, frozen=True):
    """meta/v1 WatchEvent."""

    type: str
    object: msgspec.Raw


class Bookmark(_Struct, frozen=True):
    """What every object of a watch event has: the version to go on from."""

    class Metadata(_Struct, frozen=True):
        """The one field."""

        resource_version: str = ""

    metadata: Metadata


class Status(_Struct, frozen=True):
    """meta/v1 Status: why the API says no."""

    message: str = ""
    code: int = 0


T = TypeVar("T")

_decoders: dict[type, msgspec.json.Decoder[Any]] = {}


def decode(data: bytes | msgspec.Raw, kind: type[T]) -> T:
    """Decodes JSON into one of the types above.

    Raises:
        MalformedObjectError: It is not JSON, or not of that shape; the text names the field.
    """
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    try:
        value: T = decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedObjectError(str(error)) from error
    return value


KINDS: Mapping[tuple[str, str], type[Service | EndpointSlice]] = {
    ("v1", "Service"): Service,
    ("discovery.k8s.io/v1", "EndpointSlice"): EndpointSlice,
}


def flatten(document: object) -> list[dict[str, Any]]:
    """The services and slices in a parsed document, not decoded yet: a List has several, another kind none.

    Raises:
        MalformedObjectError: It is not an object of Kubernetes.
    """
    if not isinstance(document, dict):
        raise MalformedObjectError(f"expected a Kubernetes object, got {type(document).__name__}")
    version, kind = document.get("apiVersion"), document.get("kind")
    if not isinstance(version, str) or not isinstance(kind, str):
        raise MalformedObjectError("expected a Kubernetes object, with apiVersion and kind")
    if not kind.endswith("List"):
        return [document] if (version, kind) in KINDS else []
    items = document.get("items") or []
    if not isinstance(items, list):
        raise MalformedObjectError(f"items of a {kind} must be a list")
    # The items of a ServiceList need not repeat what the list says of them.
    each = {} if kind == "List" else {"apiVersion": version, "kind": kind.removesuffix("List")}
    return [
        found for item in items for found in flatten({**each, **item} if isinstance(item, dict) else item)
    ]


def convert(document: Mapping[str, Any]) -> Object:
    """Decodes one of the documents that ``flatten`` found.

    Raises:
        MalformedObjectError: It is not of its kind's shape; the text names the object and the field.
    """
    kind = document["kind"]
    try:
        return msgspec.convert(document, KINDS[document["apiVersion"], kind])
    except (msgspec.ValidationError, RecursionError) as error:
        _, (namespace, name) = identity(document)
        raise MalformedObjectError(f"{kind} {namespace}/{name}: {error}") from error


def identity(document: Mapping[str, Any]) -> tuple[type[Object], Key]:
    """Kind and identity of one of the documents that ``flatten`` found, as far as they can be told."""
    metadata = document.get("metadata")
    known = metadata if isinstance(metadata, dict) else {}
    key = str(known.get("namespace") or "default"), str(known.get("name") or "?")
    return KINDS[document["apiVersion"], document["kind"]], key


class _Named(_Struct, frozen=True):
    metadata: Metadata


def key(item: Object) -> Key:
    """Identity of an object among those of its kind."""
    return item.metadata.namespace or "default", item.metadata.name


def key_of(data: bytes | msgspec.Raw) -> Key | None:
    """Identity of an encoded object that may be malformed otherwise; None if even that can't be told."""
    try:
        metadata = decode(data, _Named).metadata
    except MalformedObjectError:
        return None
    return metadata.namespace or "default", metadata.name
