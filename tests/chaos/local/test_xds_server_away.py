"""xds-server is killed and restarted, or unavailable for minutes: clients use their last resources."""

import time

import pytest

from tests.chaos.load import Client
from tests.chaos.mesh import TARGET, Mesh, bootstrap, kill
from tests.support.waiting import wait_until

RECOVERED = "xds-server ready → each client answered by the added pod"

BACKOFF = 120 * 1.2 + 20
"""Seconds until every client has reconnected: gRPC's longest backoff with jitter, and time to connect.

https://github.com/grpc/grpc/blob/master/doc/connection-backoff.md
"""


@pytest.mark.parametrize("seconds", [pytest.param(3, marks=pytest.mark.short), 150])
def test_killed_and_started_again(mesh: Mesh, scenario, seconds: int) -> None:
    mesh.hello.scale(2)
    server = mesh.start_xds_server()
    with (
        mesh.load(server.address) as load,
        scenario(f"xds-server killed (-9), back after {seconds} s; a pod is added meanwhile", load) as run,
    ):
        load.wait_for(mesh.hello.names)
        kill(server)
        run.now("xds-server is unavailable; a pod joins")
        mesh.hello.scale(3)
        load.go_on_for(seconds)
        run.now("xds-server restarts")
        mesh.start_again(server)
        ready = time.monotonic()
        run.recovered(load.wait_for(mesh.hello.names, BACKOFF) - ready, RECOVERED)
        run.now("a pod leaves")
        mesh.hello.delete(mesh.hello.pods[0])
        mesh.hello.wait_until_gone()


def test_clients_that_start_meanwhile_fail_and_recover(mesh: Mesh, scenario) -> None:
    mesh.hello.scale(2)
    server = mesh.start_xds_server()
    with (
        mesh.load(server.address) as load,
        scenario("a client starts while xds-server is unavailable", load) as run,
    ):
        load.wait_for(mesh.hello.names)
        kill(server)
        run.now("xds-server is unavailable; a client starts")
        with Client(bootstrap(server.address), TARGET) as new_client:
            failures = wait_until("calls to fail", lambda: new_client.failures)
            assert {failure["code"] for failure in failures} == {"UNAVAILABLE"}
            assert all(server.address in failure["details"] for failure in failures), (
                "the error names the server"
            )
            mesh.start_again(server)
            ready = time.monotonic()
            wait_until("replies", lambda: mesh.hello.names <= new_client.hosts.keys())
            first = min(first for first, _ in new_client.hosts.values())
            new_client.end()
            assert [failure for failure in new_client.failures if failure["time"] > first] == []
        run.recovered(first - ready, "xds-server ready → first reply to the new client")
        run.note(
            "until then the new client's calls fail with UNAVAILABLE and the server's address; they are not counted"
        )
