"""What every source of Kubernetes objects can do: a cluster's API, or a directory of files."""

from typing import Protocol


class Source(Protocol):
    """Keeps a store up to date for as long as the program runs."""

    async def run(self) -> None:
        """Runs until it is cancelled. Raises ServiceError if it can never work as it is configured."""

    def age(self) -> float:
        """Seconds since the source last confirmed the whole state; infinite before the first time."""
