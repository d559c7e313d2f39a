"""The tables that hold the model, and how a change of them is described.

A resource is made of entries of these tables, and is made again when one of those entries changes. A new kind of
information is a new table here.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from xds_server.model.service import Endpoint, PodPort, PortName, Service, ServiceName, SocketAddress
from xds_server.model.traffic import Policy, RouteScope, Rule

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, eq=False)
class Table(Generic[K, V]):
    """Names one table; its type parameters are the types of the table's keys and values."""

    name: str


SERVICES: Table[ServiceName, Service] = Table("services")

ENDPOINTS: Table[PortName, tuple[Endpoint, ...]] = Table("endpoints")
"""The endpoints of each port of each service in SERVICES: sorted, without a duplicate address, possibly none."""

ROUTES: Table[RouteScope, tuple[Rule, ...]] = Table("routes")
"""The rules of each scope that has any, never empty. The first one that matches counts."""

CONSUMED: Table[PortName, bool] = Table("consumed ports")
"""True for each port that ROUTES has rules of some namespace for. Only there does the namespace of a client matter."""

POLICIES: Table[PortName, Policy] = Table("policies")
"""The policy of each port that has one."""

NODE_ZONES: Table[str, str] = Table("node zones")
"""The zone of each node that is in one, by the node's name."""

SERVERS: Table[PodPort | SocketAddress, tuple[PortName, ...]] = Table("servers")
"""The ports that lead to a server, ready or not, sorted; of Services in namespaces of SECURED. A server is known by its
pod and by its address."""

SECURED: Table[str, bool] = Table("secured namespaces")
"""True for each namespace with a security policy, and for ``ANY_NAMESPACE`` if there is one. A server there waits until
it is known."""

READ: Table[str, bool] = Table("read namespaces")
"""Empty if all namespaces are read. Else true for each one that is, and for ``ANY_NAMESPACE``."""

ANY_NAMESPACE = ""

TABLES: tuple[Table[Any, Any], ...] = (
    SERVICES,
    ENDPOINTS,
    ROUTES,
    CONSUMED,
    POLICIES,
    NODE_ZONES,
    SERVERS,
    SECURED,
    READ,
)


class Entry(NamedTuple):
    """One entry of one table, whether it exists or not."""

    table: Table[Any, Any]
    key: Any


Changes = Mapping[Entry, Any]
"""The new value of every entry that changed; None where the entry is gone."""
