"""Rollouts, scaling and deletions of hello-server, with the endpoints that Kubernetes writes: no call may fail.

The endpoint update of a terminating pod is late by a second, and each pod keeps serving for its DRAIN_DELAY.
"""

import time

import pytest

from tests.chaos.mesh import LATE, Mesh

RECOVERED = "the last new pod ready → each client answered by each new pod"


@pytest.mark.parametrize("replicas", [pytest.param(2, marks=pytest.mark.short), 5])
def test_a_rolling_restart(mesh: Mesh, scenario, replicas: int) -> None:
    mesh.hello.scale(replicas)
    with (
        mesh.load(mesh.start_xds_server().address) as load,
        scenario(f"rolling restart of {replicas} hello-servers", load) as run,
    ):
        load.wait_for(mesh.hello.names)
        run.now(f"restarting {replicas} pods")
        mesh.hello.restart()
        ready = time.monotonic()
        run.recovered(load.wait_for(mesh.hello.names) - ready, RECOVERED)
        run.now("the old pods drain and exit")
        mesh.hello.wait_until_gone()
        run.note(f"endpoint update delayed by {LATE:.0f} s")


def test_scaling(mesh: Mesh, scenario) -> None:
    mesh.hello.scale(5)
    with mesh.load(mesh.start_xds_server().address) as load, scenario("scaling 5 → 1 → 5", load) as run:
        load.wait_for(mesh.hello.names)
        run.now("scaling 5 → 1")
        mesh.hello.scale(1)
        mesh.hello.wait_until_gone()
        run.now("scaling 1 → 5")
        mesh.hello.scale(5)
        ready = time.monotonic()
        run.recovered(load.wait_for(mesh.hello.names) - ready, RECOVERED)


def test_deleting_single_pods(mesh: Mesh, scenario) -> None:
    mesh.hello.scale(3)
    with (
        mesh.load(mesh.start_xds_server().address) as load,
        scenario("graceful deletion of single pods", load) as run,
    ):
        for number in range(1, 4):
            run.now(f"deleting a pod, {number} of 3")
            mesh.hello.replace(mesh.hello.pods[0])
            ready = time.monotonic()
            run.recovered(load.wait_for(mesh.hello.names) - ready, RECOVERED)
        run.now("the deleted pods drain and exit")
        mesh.hello.wait_until_gone()
