"""What happens to hello-server every day, with the endpoints as Kubernetes writes them: no call may fail.

The news that a pod goes is late by a second, and each pod goes on serving for its DRAIN_DELAY.
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
        scenario(f"rolling restart of {replicas} hello-servers", load) as told,
    ):
        load.wait_for(mesh.hello.names)
        told.now(f"restarting {replicas} pods")
        mesh.hello.restart()
        ready = time.monotonic()
        told.recovered(load.wait_for(mesh.hello.names) - ready, RECOVERED)
        told.now("the old pods drain and end")
        mesh.hello.wait_until_gone()
        told.note(f"endpoint update delayed by {LATE:.0f} s")


def test_scaling(mesh: Mesh, scenario) -> None:
    mesh.hello.scale(5)
    with mesh.load(mesh.start_xds_server().address) as load, scenario("scaling 5 → 1 → 5", load) as told:
        load.wait_for(mesh.hello.names)
        told.now("scaling 5 → 1")
        mesh.hello.scale(1)
        mesh.hello.wait_until_gone()
        told.now("scaling 1 → 5")
        mesh.hello.scale(5)
        ready = time.monotonic()
        told.recovered(load.wait_for(mesh.hello.names) - ready, RECOVERED)


def test_deleting_single_pods(mesh: Mesh, scenario) -> None:
    mesh.hello.scale(3)
    with (
        mesh.load(mesh.start_xds_server().address) as load,
        scenario("graceful deletion of single pods", load) as told,
    ):
        for number in range(1, 4):
            told.now(f"deleting a pod, {number} of 3")
            mesh.hello.replace(mesh.hello.pods[0])
            ready = time.monotonic()
            told.recovered(load.wait_for(mesh.hello.names) - ready, RECOVERED)
        told.now("the deleted pods drain and end")
        mesh.hello.wait_until_gone()
