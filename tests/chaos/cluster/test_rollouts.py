"""Rollouts, scaling and deletions of hello-server: no call may fail."""

from collections.abc import Callable

import pytest

from tests.chaos.cluster.news import HELLO, new_pods
from tests.chaos.load import Load
from tests.cluster import faults
from tests.cluster.kube import Cluster, Object


@pytest.mark.parametrize("replicas", [pytest.param(2, marks=pytest.mark.short), 5])
def test_a_rolling_restart(demo: Cluster, load: Callable[..., Load], scenario, replicas: int) -> None:
    demo.scale(HELLO, replicas)
    with load() as calls, scenario(f"rolling restart of {replicas} hello-servers", calls) as run:
        calls.wait_for(demo.pod_names(HELLO))
        for times in (1, 2):
            run.now(f"restarting {replicas} pods, {times} of 2")
            with new_pods(demo, calls, run):
                demo.restart(HELLO)


def test_scaling(demo: Cluster, load: Callable[..., Load], scenario) -> None:
    demo.scale(HELLO, 5)
    with load() as calls, scenario("scaling 5 → 1 → 5", calls) as run:
        calls.wait_for(demo.pod_names(HELLO))
        run.now("scaling 5 → 1")
        demo.scale(HELLO, 1)
        run.now("scaling 1 → 5")
        with new_pods(demo, calls, run):
            demo.scale(HELLO, 5)


def test_deleting_single_pods(demo: Cluster, load: Callable[..., Load], scenario) -> None:
    demo.scale(HELLO, 3)
    with load() as calls, scenario("graceful deletion of single pods", calls) as run:
        calls.wait_for(demo.pod_names(HELLO))
        for number in range(1, 4):
            run.now(f"deleting a pod, {number} of 3")
            with new_pods(demo, calls, run):
                demo.kubectl("delete", "pod", min(demo.pod_names(HELLO)))


def test_draining_a_node(demo: Cluster, load: Callable[..., Load], scenario) -> None:
    """All replicas and xds-server are on the node; the PodDisruptionBudgets allow one eviction at a time."""
    stays, drained = demo.workers()
    demo.scale(HELLO, 2)
    demo.scale("xds-server", 1)
    with faults.cordoned(demo, stays):
        demo.restart(HELLO)
        demo.restart("xds-server")
    with load(stays) as calls, scenario("a node with all hello-servers is drained", calls) as run:
        calls.wait_for(demo.pod_names(HELLO))
        run.now("draining the node")
        with faults.cordoned(demo, drained), new_pods(demo, calls, run):
            demo.kubectl("drain", drained, "--ignore-daemonsets", "--timeout=180s")
            demo.rolled_out("xds-server")
        first, second = sorted(demo.pods(HELLO), key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
        assert second["metadata"]["creationTimestamp"] >= became_ready(first), "one at a time"
        run.note("xds-server was on that node too")


def became_ready(pod: Object) -> str:
    [when] = [each["lastTransitionTime"] for each in pod["status"]["conditions"] if each["type"] == "Ready"]
    return str(when)
