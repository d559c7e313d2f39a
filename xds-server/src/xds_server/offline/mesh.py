"""The model that documents make, as the server would make it of a folder."""

from collections.abc import Iterable
from typing import Any

from xds_server.mesh.store import Store
from xds_server.model.tables import TABLES, Changes, Table
from xds_server.objects import meta
from xds_server.objects.documents import Identity
from xds_server.objects.kinds import KINDS, collections


def assemble(
    objects: Iterable[tuple[Identity, meta.Object]],
) -> tuple[Store, dict[Table[Any, Any], dict[Any, Any]]]:
    """Returns a store of these objects, and the tables that they make."""
    tables: dict[Table[Any, Any], dict[Any, Any]] = {table: {} for table in TABLES}

    def publish(changes: Changes) -> None:
        for entry, value in changes.items():
            tables[entry.table][entry.key] = value

    found = collections(KINDS)
    store = Store(found, publish)
    known = dict(objects)
    store.replace({c: [item for key, item in known.items() if key.kind is c.kind] for c in found})
    return store, tables
