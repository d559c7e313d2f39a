"""xds-server is killed, replaced, or unavailable for minutes: clients use their last resources.

Pods are only added meanwhile. Without xds-server, clients cannot learn that a pod stops, and gRPC's server may cancel a
call that crosses its GOAWAY.
"""

from collections.abc import Callable

import pytest

from tests.chaos.cluster.pods import CallerPods
from tests.chaos.load import Load
from tests.cluster import readiness
from tests.cluster.kube import NAME, Cluster
from tests.support.waiting import wait_until

HELLO = "hello-server"
XDS = "xds-server"
BACKOFF = 150.0
"""Seconds of gRPC's longest reconnect backoff to an xDS server: two minutes and 20 % of jitter."""
BACK = "xds-server seen ready → each client answered by the added pod"
KNOWN = "a pod seen ready afterwards → each client answered by it"


def begin(demo: Cluster) -> None:
    """Scales to the initial state: two pods and one xds-server."""
    demo.scale(HELLO, 2)
    demo.scale(XDS, 1)


@pytest.mark.short
def test_killed(demo: Cluster, load: Callable[..., Load], scenario) -> None:
    begin(demo)
    with load() as calls, scenario("xds-server killed while a pod is added", calls) as run:
        calls.wait_for(demo.pod_names(HELLO))
        run.now("xds-server is killed; a pod joins")
        with readiness.watched(demo, XDS) as ready:
            killed = demo.pod_names(XDS)
            demo.kubectl("delete", "pod", "--selector", f"{NAME}={XDS}", "--force", "--grace-period=0")
            demo.scale(HELLO, 3)
            demo.rolled_out(XDS)
            [back] = demo.pod_names(XDS) - killed
            answered = calls.wait_for(demo.pod_names(HELLO))
            run.recovered(answered - readiness.monotonic(ready[back]), BACK)


def test_away_for_minutes(demo: Cluster, load: Callable[..., Load], scenario) -> None:
    begin(demo)
    with (
        load() as calls,
        scenario("no xds-server for 2 minutes; a pod is added meanwhile", calls) as run,
    ):
        calls.wait_for(demo.pod_names(HELLO))
        demo.scale(XDS, 0)
        run.now("no xds-server; a pod joins")
        demo.scale(HELLO, 3)
        calls.go_on_for(120)
        run.now("xds-server restarts")
        with readiness.watched(demo, XDS) as ready:
            demo.scale(XDS, 1)
            answered = calls.wait_for(demo.pod_names(HELLO), BACKOFF)
            run.recovered(answered - min(readiness.monotonic(moment) for moment in ready.values()), BACK)


def test_a_rolling_update(demo: Cluster, load: Callable[..., Load], scenario) -> None:
    begin(demo)
    with load() as calls, scenario("rolling update of 1 xds-server", calls) as run:
        calls.wait_for(demo.pod_names(HELLO))
        run.now("xds-server is replaced")
        demo.restart(XDS)
        run.now("a pod joins")
        with readiness.watched(demo, HELLO) as ready:
            known = demo.pod_names(HELLO)
            demo.scale(HELLO, 3)
            [new] = demo.pod_names(HELLO) - known
            run.recovered(calls.wait_for([new]) - readiness.monotonic(ready[new]), KNOWN)


def test_clients_that_start_meanwhile_fail_and_recover(
    demo: Cluster, callers: CallerPods, load: Callable[..., Load], scenario
) -> None:
    begin(demo)
    with load() as calls, scenario("a client starts while there is no xds-server", calls) as run:
        calls.wait_for(demo.pod_names(HELLO))
        demo.scale(XDS, 0)
        run.now("no xds-server; a client starts")
        with callers.follow(callers.start()) as new_client:
            failures = wait_until("calls to fail", lambda: new_client.failures)
            assert {failure["code"] for failure in failures} == {"UNAVAILABLE"}
            assert all("xds-server:18000" in failure["details"] for failure in failures), (
                "the error names the server"
            )
            run.now("xds-server restarts")
            with readiness.watched(demo, XDS) as ready:
                demo.scale(XDS, 1)
                wait_until("replies", lambda: demo.pod_names(HELLO) <= new_client.hosts.keys())
            first = min(first for first, _ in new_client.hosts.values())
            new_client.end()
            assert [failure for failure in new_client.failures if failure["time"] > first] == []
        started = min(readiness.monotonic(moment) for moment in ready.values())
        run.recovered(first - started, "xds-server seen ready → first reply to the new client")
        run.note(
            "until then the new client's calls fail with UNAVAILABLE and the server's address; they are not counted"
        )
