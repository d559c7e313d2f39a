"""A node is cut off from all others: clients on each side use the pods of their side."""

import time
from collections.abc import Callable

from tests.chaos.cluster.cut import Cut
from tests.chaos.cluster.pods import CallerPods
from tests.chaos.load import Load
from tests.cluster import faults
from tests.cluster.kube import Cluster
from tests.support.waiting import wait_until

HELLO = "hello-server"
SECONDS = 75
"""Longer than Kubernetes takes to declare a node lost: 50 s, kube-controller-manager's --node-monitor-grace-period."""


def test_a_node_is_cut_off(demo: Cluster, callers: CallerPods, load: Callable[..., Load], scenario) -> None:
    near, far = demo.workers()
    demo.scale(HELLO, 4)
    demo.restart(HELLO)
    demo.scale("xds-server", 1)
    with faults.cordoned(demo, far):
        demo.restart("xds-server")
    pods = demo.pod_names(HELLO)
    near_pods = {pod["metadata"]["name"] for pod in demo.pods(HELLO) if pod["spec"]["nodeName"] == near}
    assert len(near_pods) == 2, "half of the pods are on each side"
    cut = Cut()
    with load(near) as calls, scenario(f"a node cut off for {SECONDS} s", calls) as run:
        calls.wait_for(pods)
        beyond = callers.start(far)
        with callers.follow(beyond) as log:
            wait_until("replies on the other side", lambda: pods <= log.hosts.keys())
        run.lose(cut.explains)
        run.now("a node is cut off")
        with cut.off(demo, far):
            calls.go_on_for(SECONDS)
            assert calls.answered_since(time.monotonic() - 10) == near_pods, (
                "clients use all pods of their side"
            )
        run.now("the node is connected again")
        wait_until("replies of all pods", lambda: calls.answered_since(cut.healed) == pods)
        run.recovered(
            time.monotonic() - cut.healed, "the node connected again → each client answered by each pod"
        )
        # The log of a client on the other side can only be read now.
        with callers.follow(beyond) as log:
            wait_until(
                "replies of all pods on the other side",
                lambda: {host for host, (_, last) in log.hosts.items() if last > cut.healed} == pods,
            )
            log.end()
        for caller in (*calls.clients, log):
            cut.assert_lost(caller, share=0.5)
        run.note(cut.describe(*calls.clients, log))
        run.note(f"a client on that node lost another {len(log.failures)} of {log.sent:,}")
