"""Measures how soon clients reach new pods."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.chaos.load import Load
from tests.chaos.scenario import Scenario
from tests.cluster import readiness
from tests.cluster.kube import Cluster
from tests.support.waiting import DEADLINE

HELLO = "hello-server"
RECOVERED = "the last new pod seen ready → each client answered by each new pod"


@contextmanager
def new_pods(demo: Cluster, calls: Load, run: Scenario, deadline: float = DEADLINE) -> Iterator[None]:
    """Waits for the pods that the body of the context adds, and records how soon all clients had replies from them."""
    before = demo.pod_names(HELLO)
    with readiness.watched(demo, HELLO) as ready:
        yield
        demo.rolled_out(HELLO)
        new = demo.pod_names(HELLO) - before
        answered = calls.wait_for(new, deadline)
        run.recovered(answered - max(readiness.monotonic(ready[pod]) for pod in new), RECOVERED)
