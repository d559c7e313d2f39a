"""The demo of `local-demo up`, in a directory and on ports of its own."""

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support import running
from tests.support.running import Running
from tests.support.waiting import wait_until

SERVERS = ("hello-server", "howdy-server")
CLIENTS = ("hello-client", "howdy-client")


def environment(**settings: str) -> dict[str, str]:
    """Makes the environment of a demo that shares nothing with others."""
    defaults = {
        "LISTEN": f"127.0.0.1:{running.free_port()}",
        "ADMIN_LISTEN": f"127.0.0.1:{running.free_port()}",
        "INTERVAL": "0.05",
        "DRAIN_DELAY": "1",
        "DEBUG_LISTEN": "",
        "LOG_FORMAT": "json",
    }
    return running.environment(**(defaults | settings))


def alive(pids: Mapping[str, int]) -> list[str]:
    """Names those of these programs that have not ended."""
    return [name for name, pid in pids.items() if running.is_alive(pid)]


class Demo(Running):
    """A running demo."""

    def __init__(self, directory: Path, **settings: str) -> None:
        self.directory = directory
        self.env = environment(**settings)
        super().__init__("local-demo", "up", "--directory", str(directory), env=self.env)

    def wait_until_up(self) -> None:
        """Waits for the first replies of both clients."""
        for client in CLIENTS:
            wait_until(f"replies to {client}", lambda client=client: self.replies(client) or self._ended())  # type: ignore[misc]

    def log(self, program: str) -> list[dict[str, Any]]:
        """Returns what a program has logged until now."""
        own = [line.partition("|") for line in self.lines]
        return running.records([text.strip() for name, _, text in own if name.strip() == program])

    def replies(self, client: str) -> list[str]:
        """Names the replicas that answered a client, in order."""
        return [record["hostname"] for record in self.log(client) if record["event"] == "reply"]

    def failures(self, client: str) -> list[dict[str, Any]]:
        """Returns the failed calls that a client has logged."""
        return [record for record in self.log(client) if record["event"] == "call failed"]

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs another command on this demo's directory."""
        return running.run(
            "local-demo", *arguments, "--directory", str(self.directory), env=self.env, seconds=90
        )

    def scale(self, service: str, replicas: int) -> None:
        result = self.command("scale", service, str(replicas))
        assert result.returncode == 0, result.stderr

    def wait_for_answers_of(self, client: str, replicas: int) -> set[str]:
        """Waits until exactly so many replicas answer a client, all in turn; returns their names."""
        # Enough calls to see that no replica is missing and none too many.
        calls = max(10, 3 * replicas)
        seen = len(self.replies(client))

        def in_turn() -> set[str]:
            latest = self.replies(client)[seen:][-calls:]
            names = set(latest)
            regular = all(latest[i] == latest[i - replicas] for i in range(replicas, len(latest)))
            return names if len(latest) == calls and len(names) == replicas and regular else set()

        return wait_until(f"{replicas} replicas answering {client} in turn", in_turn)

    def pids(self) -> dict[str, int]:
        """Returns the process ids of the programs that run now."""
        return {file.name: int(file.read_text()) for file in (self.directory / "processes").iterdir()}

    def send_to(self, program: str, number: signal.Signals) -> None:
        os.kill(self.pids()[program], number)

    def end(self) -> dict[str, dict[str, Any]]:
        """Ends it as Ctrl-C does, checks that no process is left, and returns each client's count of all its calls."""
        pids = self.pids()
        assert pids, "it does not run"
        self.send_to_group(signal.SIGINT)
        assert self.wait() == 0
        assert not alive(pids), "processes are left behind"
        return {client: self._total(client) for client in CLIENTS}

    def _total(self, client: str) -> dict[str, Any]:
        return next(record for record in self.log(client) if record.get("period") == "in all")
