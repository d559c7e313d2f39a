"""What every source of the mesh's state can do."""

from typing import Protocol

from xds_server.discovery.registry import Registry


class Source(Protocol):
    """Feeds a registry for as long as the program runs."""

    registry: Registry

    async def run(self) -> None:
        """Runs until it is cancelled. Raises ServiceError if it can never work as it is configured."""

    def age(self) -> float:
        """Seconds since the source last confirmed the state; infinite before the first time."""
