"""A node that is cut off from all others, and which requests may fail because of it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from greeting.client.program import CHANNEL_OPTIONS
from tests.chaos.load import CALLS_A_SECOND, Caller
from tests.cluster import faults
from tests.cluster.kube import Cluster

CLOSED_AFTER = dict(CHANNEL_OPTIONS)["grpc.keepalive_timeout_ms"] / 1000
"""Seconds after which a client closes a silent connection."""
SLACK = 3.0
"""Additional seconds for a busy machine."""


class Cut:
    """The times of the cut. Requests on connections across it may fail until the client closes those."""

    def __init__(self) -> None:
        self.begun = self.made = self.healed = float("inf")

    @contextmanager
    def off(self, cluster: Cluster, node: str) -> Iterator[None]:
        """Cuts a node off."""
        self.begun = time.monotonic()
        with faults.cut_off(cluster, node):
            self.made = time.monotonic()
            yield
        self.healed = time.monotonic()

    def explains(self, failure: dict[str, Any]) -> bool:
        """Returns whether a request failed because its silent connection was closed."""
        with_connection: bool = failure["details"].startswith("Stream removed (")
        return with_connection and self.begun < failure["time"] < self.made + CLOSED_AFTER + SLACK

    def assert_lost(self, caller: Caller, share: float) -> None:
        """Asserts that no more requests failed than the share that round robin sent across the cut."""
        others = [failure for failure in caller.failures if not self.explains(failure)]
        assert not others, (
            f"cut off at {self.made:.1f}, and {len(others)} others failed, such as {others[:5]}"
        )
        sent = [failure["time"] - failure["seconds"] for failure in caller.failures]
        seconds = max(sent) - min(sent)
        assert len(sent) <= CALLS_A_SECOND * share * (seconds + 0.5)

    def describe(self, *callers: Caller) -> str:
        """Returns a note that says when the last request failed."""
        last = max(failure["time"] for caller in callers for failure in caller.failures)
        return f"all failed requests were sent across the cut before the connections were closed, {last - self.made:.1f} s later"
