"""The client that a resource is made for."""

from typing import NamedTuple


class Client(NamedTuple):
    """Everything about a client that a resource may depend on. Two equal clients get equal resources.

    Attributes:
        namespace: Where a service without a namespace in its name is looked for.
        zone: The zone the client runs in; empty if unknown.
        node: The Kubernetes node it runs on; empty if unknown.
        identity: Its authenticated identity; empty if it has none.
    """

    namespace: str
    zone: str = ""
    node: str = ""
    identity: str = ""
