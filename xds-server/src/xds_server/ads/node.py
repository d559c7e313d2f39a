"""What a client says of itself in the first request of a stream. Pure."""

import re
from typing import Any, NamedTuple

from xds_server.errors import ForbiddenError, InvalidRequestError
from xds_server.model.client import Client
from xds_server.model.identity import Identity

MAX_NODE_BYTES = 65_536
"""Of the node as it is sent. gRPC clients send some 300 bytes; Envoy lists all of its extensions."""
MAX_KEPT_BYTES = 16_384
"""Of the node without the list of extensions, which is kept for as long as its stream."""
MAX_TRAIT_LENGTH = 253
"""Of the name of a zone, node or pod. Kubernetes allows no longer ones."""
MAX_SHOWN_LENGTH = 320
"""Of the id and the user agent, which are only shown; a pod and its namespace have at most that."""
DEFAULT_NAMESPACE = "default"

_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-label-names"""


class Node(NamedTuple):
    """A client as it describes itself.

    Attributes:
        id: Any text; two clients may have the same.
        user_agent: Name and version of its gRPC library.
        client: What resources may depend on.
        encoded: The description without the list of extensions, serialised, for tools that ask for it.
    """

    id: str
    user_agent: str
    client: Client
    encoded: bytes


UNKNOWN = Node("", "", Client(DEFAULT_NAMESPACE), b"")


def read(node: Any, identity: Identity | None = None, address: str = "") -> Node:
    """Reads an ``envoy.config.core.v3.Node``.

    Args:
        node: As the client sent it.
        identity: Who the client is, if its certificate says so: then its namespace is the one there.
        address: The IP address it connects from; empty if unknown.

    Raises:
        InvalidRequestError: It, or a part of it that resources may depend on, is too large.
        ForbiddenError: It claims another namespace than the certificate.
    """
    _check_size(node, MAX_NODE_BYTES)
    if node.extensions:
        kept = type(node)()
        kept.CopyFrom(node)
        kept.ClearField("extensions")
        node = kept
    _check_size(node, MAX_KEPT_BYTES)
    metadata = node.metadata.fields
    claimed = _text(metadata, "NAMESPACE")
    if identity is not None and claimed not in ("", identity.namespace):
        raise ForbiddenError(
            f"the node claims the namespace {claimed[:MAX_TRAIT_LENGTH]}, but the certificate is that of {identity}: "
            "set node.metadata.NAMESPACE in the bootstrap to the namespace of the pod"
        )
    if claimed and not _NAMESPACE.fullmatch(claimed):
        raise InvalidRequestError(
            f"node.metadata.NAMESPACE is {claimed[:MAX_TRAIT_LENGTH]!r}, which no namespace can be called: "
            "set it in the bootstrap to the namespace of the pod"
        )
    client = Client(
        namespace=identity.namespace if identity else claimed or DEFAULT_NAMESPACE,
        zone=node.locality.zone,
        node=_text(metadata, "NODE_NAME"),
        identity=str(identity or ""),
        # A pod has its name in a namespace.
        pod=_text(metadata, "POD_NAME") if claimed or identity else "",
        address=address,
    )
    for trait in ("zone", "node", "pod"):
        if len(getattr(client, trait)) > MAX_TRAIT_LENGTH:
            raise InvalidRequestError(f"the node's {trait} is longer than {MAX_TRAIT_LENGTH} characters")
    return Node(
        node.id[:MAX_SHOWN_LENGTH],
        f"{node.user_agent_name} {node.user_agent_version}".strip()[:MAX_SHOWN_LENGTH],
        client,
        node.SerializeToString(),
    )


def _check_size(node: Any, limit: int) -> None:
    size = node.ByteSize()
    if size > limit:
        raise InvalidRequestError(f"the node has {size} bytes; at most {limit} are allowed")


def _text(metadata: Any, name: str) -> str:
    """A field of the node's metadata; empty if it is missing. Reading a missing field would create it."""
    text: str = metadata[name].string_value if name in metadata else ""
    return text
