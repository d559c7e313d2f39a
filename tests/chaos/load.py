"""Constant load: several processes that call through `xds:///`."""

import json
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support import running
from tests.support.running import Running
from tests.support.waiting import DEADLINE, wait_until

CALLER = Path(__file__).with_name("caller.py")
CLIENTS = 4
CALLS_A_SECOND = 60
"""Calls a second of each client; in all, more than LEAST."""
LEAST = 200
"""The minimum of calls a second of all clients in a scenario."""


class Caller(Running):
    """A program that prints the reports of caller.py: caller.py itself, or a reader of its log."""

    def __init__(self, *command: str, env: Mapping[str, str]) -> None:
        self.sent = 0
        self.done = 0
        self.hosts: dict[str, list[float]] = {}
        self.failures: list[dict[str, Any]] = []
        self._is_complete = False
        super().__init__(*command, env=env)

    def assert_runs(self) -> None:
        """Asserts that the program still runs."""
        self._ended()

    def end(self) -> None:
        """Stops the program and waits for its calls in flight."""
        self._stop()
        assert self.wait() == 0, self.lines[-20:]
        assert self._is_complete, "its last report was lost"

    def _stop(self) -> None:
        self.send(signal.SIGTERM)

    def _take(self, line: str) -> None:
        if not line.startswith("{"):
            super()._take(line)  # a log line of gRPC, or a traceback
            return
        report = json.loads(line)
        self._is_complete = report["last"]
        self.sent, self.done, self.hosts = report["sent"], report["done"], report["hosts"]
        self.failures += report["failures"]


class Client(Caller):
    """A process that calls on this machine."""

    def __init__(self, bootstrap: str, target: str, calls_a_second: float = CALLS_A_SECOND) -> None:
        environment = running.environment(GRPC_XDS_BOOTSTRAP_CONFIG=bootstrap, GRPC_VERBOSITY="NONE")
        super().__init__(sys.executable, str(CALLER), target, str(calls_a_second), env=environment)


class Load:
    """All clients together."""

    def __init__(self, start: Callable[[], Caller]) -> None:
        self._start = start
        self.clients: list[Caller] = []
        self.began = time.monotonic()

    def __enter__(self) -> Self:
        for _ in range(CLIENTS):
            self.join()
        wait_until("a reply to every client", lambda: all(client.hosts for client in self._running()))
        self.began = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self.clients:
            client.__exit__(kind, error, trace)

    def join(self) -> Caller:
        """Starts one more client."""
        client = self._start()
        self.clients.append(client)
        return client

    def end(self) -> float:
        """Stops all clients and returns the calls a second."""
        seconds = time.monotonic() - self.began
        rate = self.sent / seconds
        for client in self.clients:
            client.end()
        return rate

    @property
    def sent(self) -> int:
        return sum(client.sent for client in self.clients)

    @property
    def failures(self) -> list[dict[str, Any]]:
        """The calls that have failed so far."""
        return [failure for client in self.clients for failure in client.failures]

    def wait_for(self, hosts: Iterable[str], deadline: float = DEADLINE) -> float:
        """Waits until every client has a reply from each of these hosts; returns when the last client had it."""
        wanted = set(hosts)
        wait_until(
            f"replies of {sorted(wanted)} to every client",
            lambda: all(wanted <= client.hosts.keys() for client in self._running()),
            deadline,
        )
        return max(client.hosts[host][0] for client in self._running() for host in wanted)

    def answered_since(self, time_: float) -> set[str]:
        """Returns the hosts that have replied to every client since this time."""
        clients = ({h for h, (_, last) in client.hosts.items() if last > time_} for client in self._running())
        return set.intersection(*clients)

    def go_on_for(self, seconds: float) -> None:
        """Lets a fault last for this many seconds, and asserts that the clients have called meanwhile."""
        before = self.sent
        time.sleep(seconds)
        assert self.sent > before, "no client calls"

    def _running(self) -> list[Caller]:
        for client in self.clients:
            client.assert_runs()
        return self.clients
