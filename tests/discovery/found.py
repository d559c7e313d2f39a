"""What a source found, and ways to wait for it."""

import asyncio

import pytest

from xds_server.mesh.store import Store
from xds_server.model.tables import ENDPOINTS, SERVICES, Entry
from xds_server.objects.kinds import KINDS, collections
from xds_server.source import Source


class Found:
    """What a source made its store publish, and how things are now."""

    source: Source
    task: asyncio.Task[None]

    def __init__(self, kinds=KINDS, namespaces=()):
        self.collections = collections(kinds, namespaces)
        self.store = Store(self.collections, self._publish)
        self.publications = []
        self._tables = {}

    def _publish(self, changes):
        self.publications.append(dict(changes))
        self._tables |= changes

    def addresses(self):
        """Addresses by service."""
        return {
            str(key): [
                str(endpoint.addresses[0])
                for port in service.port_names
                for endpoint in self._tables[Entry(ENDPOINTS, port)]
            ]
            for (table, key), service in self._tables.items()
            if table is SERVICES and service is not None
        }

    async def until(self, condition, what, seconds=10):
        """Waits until something is so."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    await asyncio.sleep(0.01)
        except TimeoutError:
            pytest.fail(f"after {seconds} s still not {what}; known: {self.addresses()}")

    async def until_known(self, expected):
        """Waits until exactly these addresses are known."""
        await self.until(lambda: self.addresses() == expected, f"known: {expected}")

    async def always(self, condition, seconds):
        """Watches that something stays so."""
        end = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < end:
            assert condition(), f"known: {self.addresses()}"
            await asyncio.sleep(0.01)
