"""What a source found, and ways to wait for it."""

import asyncio

import pytest


class Found:
    """What a source published, and how it is now."""

    def __init__(self, source):
        self.source = source
        self.publications = []

    def addresses(self):
        """Addresses by service."""
        return {
            str(name): [str(e.addresses[0]) for port in found.ports for e in port.endpoints]
            for name, found in self.source.registry.services.items()
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
