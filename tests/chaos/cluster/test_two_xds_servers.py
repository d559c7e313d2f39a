"""The overlay `ha`: two replicas of xds-server in two zones, and a bootstrap with a second server entry."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.chaos.cluster.cut import Cut
from tests.chaos.cluster.news import HELLO, new_pods
from tests.chaos.cluster.pods import CallerPods
from tests.chaos.load import CALLS_A_SECOND, Caller, Load
from tests.cluster.kube import NAME, Cluster
from tests.support.waiting import wait_until

XDS = "xds-server"
NEWCOMERS = 6
"""Clients that start: enough that some of them are sent to the lost replica."""
SECONDS = 75
"""Seconds, as in test_partition."""
KEEPALIVE = 300
"""Seconds of gRPC's keepalive to the xDS server, which cannot be configured."""


@pytest.fixture(scope="module", autouse=True)
def two_replicas(demo: Cluster) -> Iterator[None]:
    demo.task("deploy", "OVERLAY=ha")
    demo.rolled_out(XDS)
    yield
    demo.task("deploy")
    demo.kubectl("delete", "service", "xds-server-replicas")
    demo.rolled_out(XDS)


@contextmanager
def without_pods(demo: Cluster, service: str) -> Iterator[None]:
    """Removes all pods from a Service, so that its address refuses connections."""

    def select(name: str) -> None:
        patch = {"spec": {"selector": {NAME: name}}}
        demo.kubectl("patch", "service", service, "--patch", json.dumps(patch))

    select("nobody")
    try:
        yield
    finally:
        select(service)


def test_they_are_in_two_zones(demo: Cluster) -> None:
    assert {pod["spec"]["nodeName"] for pod in demo.pods(XDS)} == set(demo.workers())


def test_a_rolling_update(demo: Cluster, load: Callable[..., Load], scenario) -> None:
    demo.scale(HELLO, 2)
    with load() as calls, scenario("rolling update of 2 xds-servers", calls) as run:
        calls.wait_for(demo.pod_names(HELLO))
        run.now("both xds-servers are replaced, one after the other")
        demo.restart(XDS)
        run.now("a pod joins")
        with new_pods(demo, calls, run):
            demo.scale(HELLO, 3)


def test_one_is_killed(demo: Cluster, load: Callable[..., Load], scenario) -> None:
    demo.scale(HELLO, 2)
    with load() as calls, scenario("one of 2 xds-servers killed while a pod is added", calls) as run:
        calls.wait_for(demo.pod_names(HELLO))
        run.now("one xds-server is killed; a pod joins")
        with new_pods(demo, calls, run):
            demo.kubectl("delete", "pod", min(demo.pod_names(XDS)), "--force", "--grace-period=0")
            demo.scale(HELLO, 3)


def test_new_clients_use_the_second_server_if_the_first_is_unavailable(
    demo: Cluster, callers: CallerPods, load: Callable[..., Load], scenario
) -> None:
    demo.scale(HELLO, 2)
    with (
        load() as calls,
        scenario("a client starts while the first of its 2 xds-servers is unavailable", calls) as run,
    ):
        calls.wait_for(demo.pod_names(HELLO))
        with without_pods(demo, XDS):
            run.now("the Service xds-server has no pods; a client starts")
            with callers.follow(callers.start()) as new_client:
                wait_until("replies", lambda: demo.pod_names(HELLO) <= new_client.hosts.keys())
                run.now("a pod joins")
                demo.scale(HELLO, 3)
                wait_until("the new pod's replies", lambda: demo.pod_names(HELLO) <= new_client.hosts.keys())
                new_client.end()
        assert new_client.failures == []
        run.note(f"none of the new client's {new_client.sent:,} requests failed")


def test_the_node_of_one_is_cut_off(
    demo: Cluster, callers: CallerPods, load: Callable[..., Load], scenario
) -> None:
    near, far = demo.workers()
    demo.scale(HELLO, 4)
    demo.restart(HELLO)
    cut = Cut()
    with (
        load(near) as calls,
        scenario(
            f"the node of one of 2 xds-servers cut off for {SECONDS} s, while clients start", calls
        ) as run,
    ):
        calls.wait_for(demo.pod_names(HELLO))
        run.lose(cut.explains)
        run.now("a node is cut off; clients start")
        with cut.off(demo, far), ExitStack() as stack:
            new_clients = [
                stack.enter_context(callers.follow(callers.start(near, CALLS_A_SECOND / 10)))
                for _ in range(NEWCOMERS)
            ]
            calls.go_on_for(SECONDS)
            for new_client in new_clients:
                new_client.end()
        run.now("the node is connected again; a pod joins")
        for caller in calls.clients:
            cut.assert_lost(caller, share=0.5)
        run.note(cut.describe(*calls.clients))

        waited = [time_to_first_reply(new_client) for new_client in new_clients]
        run.note(f"a new client waits at most {max(waited):.1f} s for its first reply; no later call fails")
        with new_pods(demo, calls, run, deadline=KEEPALIVE + 60):
            demo.scale(HELLO, 5)


def time_to_first_reply(client: Caller) -> float:
    """Returns the seconds until a client's first reply; asserts that no call that began later has failed."""
    first: float = min(first for first, _ in client.hosts.values())
    began: list[float] = [failure["time"] - failure["seconds"] for failure in client.failures]
    assert all(each < first for each in began), client.failures[-5:]
    return first - min([*began, first])
