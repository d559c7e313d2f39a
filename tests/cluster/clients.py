"""What the log of a demo client says: who replied, and when a call failed."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from tests.cluster import waiting
from tests.cluster.kube import CLIENTS, NAME, Cluster

FAST = ("INTERVAL=0.05", "LOG_FORMAT=json")
"""Calls often enough to notice everything, and logs for programs."""
SLOW = ("INTERVAL-", "LOG_FORMAT=text")


@dataclass(frozen=True)
class Line:
    """A line of the log."""

    time: datetime
    event: str
    facts: dict[str, object]

    @property
    def host(self) -> str | None:
        """The host that replied, if the line is about a reply."""
        return str(self.facts["hostname"]) if self.event == "reply" else None


@dataclass(frozen=True)
class Log:
    """Lines of the log, from some time on."""

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
        """When a host replied first."""
        return next((line.time for line in self.lines if line.host == host), None)

    def __str__(self) -> str:
        return (
            f"{self.client}: {len(self.replies)} replies of {sorted(self.hosts)}, failures: {self.failures}"
        )


def read(cluster: Cluster, client: str, since: datetime | None = None) -> Log:
    """Reads the log of a client whose format is JSON, from after a time on."""
    arguments = ["logs", "--selector", f"{NAME}={client}", "--tail=-1", "--timestamps"]
    if since:
        arguments.append(f"--since-time={since.strftime('%Y-%m-%dT%H:%M:%SZ')}")
    found = (_line(text) for text in cluster.kubectl(*arguments).splitlines())
    return Log(client, tuple(line for line in found if since is None or line.time > since))


def _line(text: str) -> Line:
    time, _, content = text.partition(" ")
    facts = json.loads(content) if content.startswith("{") else {"event": content}  # gRPC's own words
    # the time that the container engine wrote down, to the microsecond: Python knows no nanoseconds
    return Line(datetime.fromisoformat(f"{time[:26].rstrip('Z'):0<26}+00:00"), facts.pop("event"), facts)


class Watch:
    """The logs of all clients from a moment on, to tell what something did to them."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._since = {client: read(cluster, client).end for client in CLIENTS}

    def log(self, client: str) -> Log:
        """Returns what a client has logged since then."""
        return read(self._cluster, client, self._since[client])

    def logs(self) -> Iterator[Log]:
        """Yields what each client has logged since then."""
        return (self.log(client) for client in CLIENTS)

    def assert_no_call_failed(self) -> None:
        """Asserts that every client went on calling and that no call failed."""
        for log in self.logs():
            assert log.replies, f"{log.client} does not call any more"
            assert not log.failures, str(log)

    def until_hosts(self, client: str, hosts: set[str]) -> None:
        """Waits until the last replies of a client come from these hosts, from each and from no other."""
        waiting.until(
            f"{client} to be answered by {sorted(hosts)}",
            lambda: self.log(client).replies[-4 * len(hosts) :],
            lambda replies: len(replies) == 4 * len(hosts) and set(replies) == hosts,
        )


def alternate(replies: list[str], hosts: set[str]) -> bool:
    """Returns whether replies come from all hosts in turn, always in the same order."""
    in_turn = all(later == earlier for earlier, later in zip(replies, replies[len(hosts) :], strict=False))
    return set(replies) == hosts and in_turn and all(a != b for a, b in pairwise(replies))
