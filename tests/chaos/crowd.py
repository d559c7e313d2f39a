"""Many xDS clients that follow a service and check what they are told: see ``followers``."""

import json
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.support import running
from tests.support.running import Running
from tests.support.waiting import wait_until

FOLLOWERS = Path(__file__).with_name("followers.py")


class Crowd(Running):
    """A process full of clients of one address."""

    def __init__(self, address: str, clients: int, name: str) -> None:
        self.clients = clients
        self._report: dict[str, Any] = {}
        environment = running.environment(GRPC_VERBOSITY="NONE")
        super().__init__(sys.executable, str(FOLLOWERS), address, str(clients), name, env=environment)

    @property
    def moves(self) -> int:
        """How often a client has come to a server again."""
        return int(self._report["moves"])

    @property
    def pushes(self) -> int:
        """The most answers about endpoints that a client has had."""
        return int(self._report["pushes"])

    @property
    def most_a_second(self) -> int:
        """The most answers about endpoints that have reached a client within a second."""
        return int(self._report["most_a_second"])

    @property
    def differences(self) -> list[str]:
        """What a client was told on a new stream and not on the one before."""
        found: list[str] = self._report["differences"]
        return found

    def wait_until_answered(self, moves: int = 0) -> None:
        """Waits until each has all it asked for, and they have come again so often."""
        wait_until(
            f"{self.clients} clients to be answered after {moves} moves",
            lambda: (
                (self._report or self._ended())
                and self._report["answered"] == self.clients
                and self.moves >= moves
            ),
        )

    def wait_for(self, endpoints: Iterable[str]) -> float:
        """Waits until the last that each was told is these endpoints; returns when the last client was."""
        wanted = " ".join(sorted(endpoints))

        def last() -> float | None:
            count, arrived = self._report.get("held", {}).get(wanted, (0, 0.0))
            return arrived if count == self.clients else None

        arrived = wait_until(f"all to know of {wanted} and nothing newer", last)
        assert arrived
        return arrived

    def scatter(self) -> None:
        """Lets all drop their connections, and come back, at once."""
        before = self.moves
        self.send(signal.SIGUSR1)
        self.wait_until_answered(before + self.clients)

    def _take(self, line: str) -> None:
        if line.startswith("{"):
            self._report = json.loads(line)
        else:
            super()._take(line)
