"""How a builder reads the model and the client, and the record of what it read.

A resource has to be built again exactly when something changes that its builder read, or looked for in vain. As the
builder's reads are recorded, no other place has to know what a resource is made of.
"""

from collections.abc import Mapping
from typing import Any

from xds_server.model.client import Client
from xds_server.model.tables import Entry, K, Table, V

Tables = Mapping[Table[Any, Any], Mapping[Any, Any]]


class Lookup:
    """Reads for one build of one resource.

    Args:
        tables: The model as it is now.
        client: The client to build for.

    Attributes:
        entries: The table entries that were read, existing or not.
        traits: The fields of the client that were read.
        remark: What people should know about the resource; empty if it is nothing.
    """

    __slots__ = ("_client", "_tables", "entries", "remark", "traits")

    def __init__(self, tables: Tables, client: Client) -> None:
        self._tables = tables
        self._client = client
        self.entries: set[Entry] = set()
        self.traits: set[str] = set()
        self.remark = ""

    def get(self, table: Table[K, V], key: K) -> V | None:
        """The value of a table entry; None if there is none."""
        self.entries.add(Entry(table, key))
        value: V | None = self._tables[table].get(key)
        return value

    @property
    def client_namespace(self) -> str:
        """The namespace of the client. A builder that reads it builds one resource for each namespace."""
        self.traits.add("namespace")
        return self._client.namespace

    @property
    def client_zone(self) -> str:
        """The zone of the client; empty if unknown. A builder that reads it builds one resource for each zone."""
        self.traits.add("zone")
        return self._client.zone

    @property
    def client_node(self) -> str:
        """The Kubernetes node of the client; empty if unknown. One that reads it builds one resource for each node."""
        self.traits.add("node")
        return self._client.node

    @property
    def client_pod(self) -> str:
        """The pod of the client; empty if unknown. One that reads it builds one resource for each pod."""
        self.traits.add("pod")
        return self._client.pod

    @property
    def client_address(self) -> str:
        """Where the client connects from; empty if unknown. One that reads it builds one resource for each address."""
        self.traits.add("address")
        return self._client.address

    @property
    def client_identity(self) -> str:
        """Who the client is, as it proved; empty if it did not."""
        self.traits.add("identity")
        return self._client.identity
