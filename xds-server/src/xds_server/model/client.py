"""The client that a resource is made for."""

from typing import NamedTuple


class Client(NamedTuple):
    """Everything about a client that a resource may depend on. Two equal clients get equal resources.

    Attributes:
        namespace: Where a service without a namespace in its name is looked for.
        zone: The zone the client runs in; empty if unknown.
        node: The Kubernetes node it runs on; empty if unknown.
        identity: Its SPIFFE id, if its certificate says one.
        pod: The name of its pod, which servers say; empty if unknown.
        address: The IP address it connects from; empty if unknown.
    """

    namespace: str
    zone: str = ""
    node: str = ""
    identity: str = ""
    pod: str = ""
    address: str = ""
