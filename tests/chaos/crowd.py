"""Many xDS clients that subscribe to a service and check the responses: see ``followers``."""

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
    """A process with many clients of one address."""

    def __init__(self, address: str, clients: int, name: str) -> None:
        self.clients = clients
        self._report: dict[str, Any] = {}
        environment = running.environment(GRPC_VERBOSITY="NONE")
        super().__init__(sys.executable, str(FOLLOWERS), address, str(clients), name, env=environment)

    @property
    def moves(self) -> int:
        """How often clients have reconnected."""
        return int(self._report["moves"])

    @property
    def pushes(self) -> int:
        """The largest number of endpoint responses that a client has received."""
        return int(self._report["pushes"])

    @property
    def most_a_second(self) -> int:
        """The largest number of endpoint responses that a client has received within a second."""
        return int(self._report["most_a_second"])

    @property
    def differences(self) -> list[str]:
        """Resources that differed on a new stream from those on the stream before."""
        found: list[str] = self._report["differences"]
        return found

    def wait_until_answered(self, moves: int = 0) -> None:
        """Waits until each client has all its resources, and the clients have reconnected this often in all."""
        wait_until(
            f"responses to {self.clients} clients after {moves} moves",
            lambda: (
                (self._report or self._ended())
                and self._report["answered"] == self.clients
                and self.moves >= moves
            ),
        )

    def wait_for(self, endpoints: Iterable[str]) -> float:
        """Waits until the latest endpoints of every client are these; returns when the last client had them."""
        wanted = " ".join(sorted(endpoints))

        def last() -> float | None:
            count, arrived = self._report.get("held", {}).get(wanted, (0, 0.0))
            return arrived if count == self.clients else None

        arrived = wait_until(f"{wanted} to be the latest endpoints of all clients", last)
        assert arrived
        return arrived

    def scatter(self) -> None:
        """Makes all clients drop their connections and reconnect at once."""
        before = self.moves
        self.send(signal.SIGUSR1)
        self.wait_until_answered(before + self.clients)

    def _take(self, line: str) -> None:
        if line.startswith("{"):
            self._report = json.loads(line)
        else:
            super()._take(line)
