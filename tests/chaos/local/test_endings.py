"""SIGTERM of each program while it is busy: it exits in time with code 0, and no request fails."""

import signal
import time

import grpc
import pytest

from tests.chaos.cluster_ip import ClusterIp
from tests.chaos.crowd import Crowd
from tests.chaos.mesh import GRACE, HOWDY_TARGET, LATE, NAME, TARGET, Mesh, bootstrap
from tests.support.ads import AdsClient
from tests.support.waiting import wait_until

DRAIN_DELAY = 5
"""Seconds, the default."""
ENDED = "SIGTERM → exit with code 0"


def test_xds_server(mesh: Mesh, scenario) -> None:
    mesh.hello.scale(2)
    server, other = mesh.start_xds_server(), mesh.start_xds_server()
    with (
        ClusterIp(server.address) as service,
        mesh.load(service.address) as load,
        Crowd(service.address, 200, NAME) as crowd,
        AdsClient(server.address) as client,
        scenario("SIGTERM of xds-server, with 204 streams", load) as run,
    ):
        crowd.wait_until_answered()
        client.walk(NAME)
        run.now("SIGTERM")
        service.servers.append(other.address)
        stopping = time.monotonic()
        server.send(signal.SIGTERM)
        error = client.wait_for_end()
        assert (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, "xds-server is shutting down")
        assert server.wait(GRACE) == 0
        run.recovered(time.monotonic() - stopping, ENDED)
        service.servers.remove(server.address)
        run.now("all clients move to the other")
        crowd.wait_until_answered(crowd.clients)
        assert crowd.differences == []
        run.now("SIGTERM of the other")
        other.send(signal.SIGTERM)
        assert other.wait(GRACE) == 0
        load.go_on_for(3)


@pytest.mark.parametrize("program", ["hello-server", "howdy-server"])
def test_a_greeters_server(mesh: Mesh, scenario, program: str) -> None:
    deployment, target = (mesh.hello, TARGET) if program == "hello-server" else (mesh.howdy, HOWDY_TARGET)
    deployment.scale(3)
    with (
        mesh.load(mesh.start_xds_server().address, target=target) as load,
        scenario(f"SIGTERM of {program}", load) as run,
    ):
        load.wait_for(deployment.names)
        run.now("SIGTERM")
        stopping = time.monotonic()
        deployment.delete(deployment.pods[0])
        deployment.wait_until_gone()
        seconds = time.monotonic() - stopping
        assert seconds >= DRAIN_DELAY
        run.recovered(seconds, ENDED)
        run.note(f"includes DRAIN_DELAY {DRAIN_DELAY} s; endpoint update delayed by {LATE:.0f} s")


@pytest.mark.parametrize("program", ["hello-client", "howdy-client"])
def test_a_greeters_client(mesh: Mesh, scenario, program: str) -> None:
    mesh.hello.scale(2)
    mesh.howdy.scale(2)
    servers = mesh.hello.names if program == "hello-client" else mesh.howdy.names
    server = mesh.start_xds_server()
    target = TARGET if program == "hello-client" else HOWDY_TARGET
    with (
        mesh.load(server.address) as load,
        mesh.start_client(program, bootstrap(server.address), target) as client,
        scenario(f"SIGTERM of {program}", load) as run,
    ):
        wait_until(
            "replies of all servers", lambda: servers <= {record.get("hostname") for record in client.records}
        )
        run.now("SIGTERM")
        stopping = time.monotonic()
        client.send(signal.SIGTERM)
        assert client.wait(GRACE) == 0
        run.recovered(time.monotonic() - stopping, ENDED)
        total = client.records[-1]
        assert (total["event"], total["period"]) == ("spread over hosts", "in all")
        assert (total["failed"], set(total["hosts"])) == (0, servers)
