"""DiscoveryResponse, assembled from resources that are serialised already.

Protobuf messages are concatenations of fields, so a response for a thousand streams is serialised once: only the nonce
differs. https://protobuf.dev/programming-guides/encoding/
Field numbers: envoy/service/discovery/v3/discovery.proto and google/protobuf/any.proto.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from xds_server.resources.types import Resource, ResourceType, digest

_VERSION_INFO, _RESOURCES, _TYPE_URL, _NONCE = 1, 2, 4, 5
_ANY_TYPE_URL, _ANY_VALUE = 1, 2
_LENGTH_DELIMITED = 2


class Content(NamedTuple):
    """A response without its nonce.

    Attributes:
        version: Equal content has an equal version on every server.
        names: The names of the resources.
        encoded: The fields, serialised.
    """

    version: str
    names: Sequence[str]
    encoded: bytes


@lru_cache(maxsize=16)
def assemble(type_: ResourceType, resources: tuple[Resource, ...]) -> Content:
    """The content of a response with these resources, assembled once for all streams that get the same."""
    version = digest("\n".join(f"{r.name} {r.version}" for r in resources).encode())
    type_url = type_.value.encode()
    any_type_url = _field(_ANY_TYPE_URL, type_url)
    encoded = b"".join(
        (
            _field(_VERSION_INFO, version.encode()),
            *(_field(_RESOURCES, any_type_url + _field(_ANY_VALUE, resource.body)) for resource in resources),
            _field(_TYPE_URL, type_url),
        )
    )
    return Content(version, tuple(resource.name for resource in resources), encoded)


def response(content: Content, nonce: str) -> bytes:
    """A serialised DiscoveryResponse."""
    return content.encoded + _nonce_field(nonce)


@lru_cache(maxsize=1024)
def _nonce_field(nonce: str) -> bytes:
    """Cached, as streams that were opened together use the same nonces at the same time."""
    return _field(_NONCE, nonce.encode())


def _field(number: int, value: bytes) -> bytes:
    """A length-delimited field."""
    return bytes((number << 3 | _LENGTH_DELIMITED,)) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth bit says that more bytes follow."""
    encoded = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
