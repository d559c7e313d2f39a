"""Constant load: several callers, each a gRPC client of its own, that call through `xds:///`."""

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
"""Of each client: together they are above LEAST."""
LEAST = 200
"""Calls a second of all clients that a scenario has to have stood."""


class Caller(Running):
    """A program that writes what caller.py reports: the caller itself, or what reads its log elsewhere."""

    def __init__(self, *command: str, env: Mapping[str, str]) -> None:
        self.sent = 0
        self.done = 0
        self.hosts: dict[str, list[float]] = {}
        self.failures: list[dict[str, Any]] = []
        self._told_all = False
        super().__init__(*command, env=env)

    def assert_runs(self) -> None:
        """Asserts that it has not ended by itself."""
        self._ended()

    def end(self) -> None:
        """Lets it finish the calls under way."""
        self._stop()
        assert self.wait() == 0, self.lines[-20:]
        assert self._told_all, "its last report was lost"

    def _stop(self) -> None:
        self.send(signal.SIGTERM)

    def _take(self, line: str) -> None:
        if not line.startswith("{"):
            super()._take(line)  # gRPC's own words, or a traceback
            return
        report = json.loads(line)
        self._told_all = report["last"]
        self.sent, self.done, self.hosts = report["sent"], report["done"], report["hosts"]
        self.failures += report["failures"]


class Client(Caller):
    """One process that calls."""

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
        wait_until("every client to be answered", lambda: all(client.hosts for client in self._running()))
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
        """Lets all clients finish; returns the calls a second that there were."""
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
        """Each call that failed until now."""
        return [failure for client in self.clients for failure in client.failures]

    def wait_for(self, hosts: Iterable[str], deadline: float = DEADLINE) -> float:
        """Waits until every client was answered by each of these hosts; returns when the last one was."""
        wanted = set(hosts)
        wait_until(
            f"every client to be answered by {sorted(wanted)}",
            lambda: all(wanted <= client.hosts.keys() for client in self._running()),
            deadline,
        )
        return max(client.hosts[host][0] for client in self._running() for host in wanted)

    def answered_since(self, time_: float) -> set[str]:
        """Returns which hosts have answered every client since then."""
        clients = ({h for h, (_, last) in client.hosts.items() if last > time_} for client in self._running())
        return set.intersection(*clients)

    def go_on_for(self, seconds: float) -> None:
        """Lets a fault last for so long; that the clients go on calling is seen by their count."""
        before = self.sent
        time.sleep(seconds)
        assert self.sent > before, "nobody calls"

    def _running(self) -> list[Caller]:
        for client in self.clients:
            client.assert_runs()
        return self.clients
