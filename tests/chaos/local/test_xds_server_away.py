"""xds-server is killed and started again, or away for minutes: clients go on with what they know."""

import time

import pytest

from tests.chaos.load import Client
from tests.chaos.mesh import TARGET, Mesh, bootstrap, kill
from tests.support.waiting import wait_until

RECOVERED = "xds-server ready → each client answered by the added pod"

BACKOFF = 120 * 1.2 + 20
"""Seconds in which every client has tried again: gRPC's longest backoff with its jitter, and time to connect.

https://github.com/grpc/grpc/blob/master/doc/connection-backoff.md
"""


@pytest.mark.parametrize("seconds", [pytest.param(3, marks=pytest.mark.short), 150])
def test_killed_and_started_again(mesh: Mesh, scenario, seconds: int) -> None:
    mesh.hello.scale(2)
    server = mesh.start_xds_server()
    with (
        mesh.load(server.address) as load,
        scenario(f"xds-server killed (-9), back after {seconds} s; a pod is added meanwhile", load) as told,
    ):
        load.wait_for(mesh.hello.names)
        kill(server)
        told.now("xds-server is away; a pod joins")
        mesh.hello.scale(3)
        load.go_on_for(seconds)
        told.now("xds-server starts again")
        mesh.start_again(server)
        ready = time.monotonic()
        told.recovered(load.wait_for(mesh.hello.names, BACKOFF) - ready, RECOVERED)
        told.now("a pod leaves")
        mesh.hello.delete(mesh.hello.pods[0])
        mesh.hello.wait_until_gone()


def test_clients_that_start_meanwhile_fail_clearly_and_heal(mesh: Mesh, scenario) -> None:
    mesh.hello.scale(2)
    server = mesh.start_xds_server()
    with (
        mesh.load(server.address) as load,
        scenario("a client starts while xds-server is unavailable", load) as told,
    ):
        load.wait_for(mesh.hello.names)
        kill(server)
        told.now("xds-server is away, a client starts")
        with Client(bootstrap(server.address), TARGET) as newcomer:
            failures = wait_until("calls to fail", lambda: newcomer.failures)
            assert {failure["code"] for failure in failures} == {"UNAVAILABLE"}
            assert all(server.address in failure["details"] for failure in failures), "it says who is away"
            mesh.start_again(server)
            ready = time.monotonic()
            wait_until("replies", lambda: mesh.hello.names <= newcomer.hosts.keys())
            first = min(first for first, _ in newcomer.hosts.values())
            newcomer.end()
            assert [failure for failure in newcomer.failures if failure["time"] > first] == []
        told.recovered(first - ready, "xds-server ready → first reply to the new client")
        told.note(
            "until then the new client's calls fail with UNAVAILABLE and the server's address; they are not counted"
        )
