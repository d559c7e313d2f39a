"""The log of a demo client: which host replied when, and which calls failed."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from tests.cluster import waiting
from tests.cluster.kube import CLIENTS, NAME, Cluster

FAST = ("INTERVAL=0.05", "LOG_FORMAT=json")
"""Environment of clients that call 20 times a second and log JSON."""
SLOW = ("INTERVAL-", "LOG_FORMAT=text")


@dataclass(frozen=True)
class Line:
    """A line of a client's log."""

    time: datetime
    event: str
    facts: dict[str, object]

    @property
    def host(self) -> str | None:
        """The host that replied, or None if the line is not a reply."""
        return str(self.facts["hostname"]) if self.event == "reply" else None


@dataclass(frozen=True)
class Log:
    """The lines of a client's log since some time."""

    client: str
    lines: tuple[Line, ...]

    @property
    def replies(self) -> list[str]:
        """The hosts that replied, in order."""
        return [line.host for line in self.lines if line.host]

    @property
    def hosts(self) -> set[str]:
        """The hosts that replied."""
        return set(self.replies)

    @property
    def failures(self) -> list[dict[str, object]]:
        """The calls that failed."""
        return [line.facts for line in self.lines if line.event == "call failed"]

    @property
    def end(self) -> datetime | None:
        """The time of the last line."""
        return self.lines[-1].time if self.lines else None

    def first_reply_of(self, host: str) -> datetime | None:
        """Returns the time of a host's first reply, or None."""
        return next((line.time for line in self.lines if line.host == host), None)

    def __str__(self) -> str:
        return (
            f"{self.client}: {len(self.replies)} replies of {sorted(self.hosts)}, failures: {self.failures}"
        )


def read(cluster: Cluster, client: str, since: datetime | None = None) -> Log:
    """Returns the JSON log of a client, after a time if given."""
    arguments = ["logs", "--selector", f"{NAME}={client}", "--tail=-1", "--timestamps"]
    if since:
        arguments.append(f"--since-time={since.strftime('%Y-%m-%dT%H:%M:%SZ')}")
    found = (_line(text) for text in cluster.kubectl(*arguments).splitlines())
    return Log(client, tuple(line for line in found if since is None or line.time > since))


def _line(text: str) -> Line:
    time, _, content = text.partition(" ")
    facts = json.loads(content) if content.startswith("{") else {"event": content}  # a log line of gRPC
    # The time is the container engine's, cut to the microseconds that Python supports.
    return Line(datetime.fromisoformat(f"{time[:26].rstrip('Z'):0<26}+00:00"), facts.pop("event"), facts)


class Watch:
    """The logs of clients since a moment, to check the effects of an action."""

    def __init__(self, cluster: Cluster, clients: Iterable[str] = CLIENTS) -> None:
        self._cluster = cluster
        self._since = {client: read(cluster, client).end for client in clients}

    def log(self, client: str) -> Log:
        """Returns what a client has logged since then."""
        return read(self._cluster, client, self._since[client])

    def logs(self) -> Iterator[Log]:
        """Yields what each client has logged since then."""
        return map(self.log, self._since)

    def assert_no_call_failed(self) -> None:
        """Asserts that every client has kept calling and that no call has failed."""
        for log in self.logs():
            assert log.replies, f"{log.client} has stopped calling"
            assert not log.failures, str(log)

    def until_hosts(self, client: str, hosts: set[str]) -> None:
        """Waits until the last replies of a client come from all of these hosts and from no other."""
        waiting.until(
            f"replies of {sorted(hosts)} to {client}",
            lambda: self.log(client).replies[-4 * len(hosts) :],
            lambda replies: len(replies) == 4 * len(hosts) and set(replies) == hosts,
        )


def alternate(replies: list[str], hosts: set[str]) -> bool:
    """Returns whether the replies come from all hosts in turn, always in the same order."""
    in_turn = all(later == earlier for earlier, later in zip(replies, replies[len(hosts) :], strict=False))
    return set(replies) == hosts and in_turn and all(a != b for a, b in pairwise(replies))
