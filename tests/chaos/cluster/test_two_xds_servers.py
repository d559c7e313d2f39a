"""The overlay `ha`: two replicas of xds-server in two zones, and a bootstrap that names a second way to them."""

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
"""Clients that start: chance alone leads some of them to the replica that is lost."""
SECONDS = 75
"""As in test_partition."""
KEEPALIVE = 300
"""Seconds after which a client asks whether its silent xds-server is there still: gRPC lets nobody change it."""


@pytest.fixture(scope="module", autouse=True)
def two_replicas(demo: Cluster) -> Iterator[None]:
    demo.task("deploy", "OVERLAY=ha")
    demo.rolled_out(XDS)
    yield
    demo.task("deploy")
    demo.kubectl("delete", "service", "xds-server-replicas")
    demo.rolled_out(XDS)


@contextmanager
def leading_nowhere(demo: Cluster, service: str) -> Iterator[None]:
    """Takes all pods from a Service: its address refuses connections."""

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
    with load() as calls, scenario("rolling update of 2 xds-servers", calls) as told:
        calls.wait_for(demo.pod_names(HELLO))
        told.now("both xds-servers are replaced, one after the other")
        demo.restart(XDS)
        told.now("a pod joins")
        with new_pods(demo, calls, told):
            demo.scale(HELLO, 3)


def test_one_is_killed(demo: Cluster, load: Callable[..., Load], scenario) -> None:
    demo.scale(HELLO, 2)
    with load() as calls, scenario("one of 2 xds-servers killed while a pod is added", calls) as told:
        calls.wait_for(demo.pod_names(HELLO))
        told.now("one xds-server is killed; a pod joins")
        with new_pods(demo, calls, told):
            demo.kubectl("delete", "pod", min(demo.pod_names(XDS)), "--force", "--grace-period=0")
            demo.scale(HELLO, 3)


def test_clients_start_with_the_second_if_the_first_is_away(
    demo: Cluster, callers: CallerPods, load: Callable[..., Load], scenario
) -> None:
    demo.scale(HELLO, 2)
    with (
        load() as calls,
        scenario("a client starts while the first of its 2 xds-servers is unavailable", calls) as told,
    ):
        calls.wait_for(demo.pod_names(HELLO))
        with leading_nowhere(demo, XDS):
            told.now("the Service xds-server leads nowhere; a client starts")
            with callers.follow(callers.start()) as newcomer:
                wait_until("replies", lambda: demo.pod_names(HELLO) <= newcomer.hosts.keys())
                told.now("a pod joins")
                demo.scale(HELLO, 3)
                wait_until("the new pod's replies", lambda: demo.pod_names(HELLO) <= newcomer.hosts.keys())
                newcomer.end()
        assert newcomer.failures == []
        told.note(f"none of the new client's {newcomer.sent:,} requests failed")


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
        ) as told,
    ):
        calls.wait_for(demo.pod_names(HELLO))
        told.lose(cut.explains)
        told.now("a node is cut off; clients start")
        with cut.off(demo, far), ExitStack() as stack:
            newcomers = [
                stack.enter_context(callers.follow(callers.start(near, CALLS_A_SECOND / 10)))
                for _ in range(NEWCOMERS)
            ]
            calls.go_on_for(SECONDS)
            for newcomer in newcomers:
                newcomer.end()
        told.now("the node is connected again; a pod joins")
        for caller in calls.clients:
            cut.assert_lost(caller, share=0.5)
        told.note(cut.told(*calls.clients))

        waited = [time_to_first_reply(newcomer) for newcomer in newcomers]
        told.note(
            f"a new client waits at most {max(waited):.1f} s for its first reply; no later call fails"
        )
        with new_pods(demo, calls, told, deadline=KEEPALIVE + 60):
            demo.scale(HELLO, 5)


def time_to_first_reply(client: Caller) -> float:
    """Asserts that no call of a client failed that began after its first reply; returns how long it took to get there."""
    first: float = min(first for first, _ in client.hosts.values())
    began: list[float] = [failure["time"] - failure["seconds"] for failure in client.failures]
    assert all(each < first for each in began), client.failures[-5:]
    return first - min([*began, first])
