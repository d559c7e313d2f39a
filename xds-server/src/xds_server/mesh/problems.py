"""What in an object can't be used, for logs, metrics and debug pages."""

from typing import NamedTuple

from xds_server.objects.meta import Key


class Problem(NamedTuple):
    """Something in an object that can't be used; everything else in it is used.

    Attributes:
        kind: Of the object, such as EndpointSlice.
        key: (namespace, name) of the object.
        reason: What is wrong, and what happens because of it.
    """

    kind: str
    key: Key
    reason: str
