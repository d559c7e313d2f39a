"""The four types that gRPC clients subscribe to, and what resources of all types have in common."""

import enum
import hashlib
from typing import NamedTuple

from google.protobuf import any_pb2
from google.protobuf.message import Message


class ResourceType(enum.Enum):
    """A type; the value is its type URL. Declared in the order in which changes are sent.

    A resource is sent before the one that refers to it: make before break.
    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#eventual-consistency-considerations
    """

    CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
    ENDPOINTS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
    LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
    ROUTE = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"

    # Members are dictionary keys on every request; hashing their identity is enough.
    __hash__ = object.__hash__

    @property
    def label(self) -> str:
        """A short word for logs and metrics, as the protocol calls its services."""
        return _LABELS[self]

    @property
    def is_full_state(self) -> bool:
        """Whether a response must contain every subscribed resource, because clients treat a missing one as deleted.

        https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#grouping-resources-into-responses
        """
        return self in (ResourceType.LISTENER, ResourceType.CLUSTER)


_LABELS = {
    ResourceType.CLUSTER: "CDS",
    ResourceType.ENDPOINTS: "EDS",
    ResourceType.LISTENER: "LDS",
    ResourceType.ROUTE: "RDS",
}


class Key(NamedTuple):
    """What a client subscribes to: a name of one type. For different clients it may be different resources."""

    type: ResourceType
    name: str


class Resource(NamedTuple):
    """A resource, serialised once for all clients that get the same.

    Attributes:
        name: Unique within its type.
        body: The deterministic serialisation.
        version: A hash of the body: equal content has an equal version, on every replica and after every restart.
    """

    name: str
    body: bytes
    version: str


def serialise(name: str, message: Message) -> Resource:
    """Makes a resource of a message."""
    body: bytes = message.SerializeToString(deterministic=True)
    return Resource(name, body, digest(body))


def pack(message: Message) -> any_pb2.Any:
    """Wraps a message, deterministically."""
    packed = any_pb2.Any()
    packed.Pack(message, deterministic=True)
    return packed


def digest(data: bytes) -> str:
    """A short hash, for versions."""
    return hashlib.sha256(data).hexdigest()[:16]
