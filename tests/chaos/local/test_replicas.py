"""Several xds-servers: their responses are byte-identical, and clients can move between them."""

import signal
import time

import pytest

from tests.chaos.cluster_ip import ClusterIp
from tests.chaos.crowd import Crowd
from tests.chaos.load import CLIENTS
from tests.chaos.mesh import LATE, NAME, Mesh, kill, streams
from tests.support.ads import AdsClient
from tests.support.waiting import wait_until
from tests.support.xds_server import XdsServer

TARGETS = [NAME, "hello-server", "howdy-server.default", "hello-server.default.svc.cluster.local:grpc"]
AGE = 10
"""MAX_CONNECTION_AGE, seconds."""
UNTIL_MOVED = AGE * 1.1 + 1
"""Seconds: gRPC adds up to a tenth of jitter to the age, and xds-server gives streams another second."""


@pytest.mark.short
def test_responses_are_byte_identical(mesh: Mesh, scenario) -> None:
    mesh.hello.scale(3)
    mesh.howdy.scale(1)
    first, second = mesh.start_xds_server(), mesh.start_xds_server()
    with (
        ClusterIp(first.address, second.address) as service,
        mesh.load(service.address) as load,
        scenario(
            "two xds-servers send identical responses, before and after a change and a restart", load
        ) as run,
    ):
        load.wait_for(mesh.hello.names)
        known = responses_of(first)
        assert responses_of(second) == known

        run.now("a pod joins, a pod leaves")
        mesh.hello.replace(mesh.hello.pods[0])
        mesh.hello.wait_until_gone()
        load.wait_for(mesh.hello.names)
        ports = sorted(pod.address for pod in mesh.hello.pods)
        for server in (first, second):
            wait_until_known(server, ports)
        changed = responses_of(first)
        assert changed != known
        assert responses_of(second) == changed

        run.now("one of them restarts")
        kill(second)
        third = mesh.start_again(second)
        assert responses_of(third) == changed == responses_of(first)
        run.note(f"{sum(len(held) for held, _ in changed.values())} resources and their versions compared")


def test_moving_clients_get_all_resources(mesh: Mesh, scenario) -> None:
    mesh.hello.scale(3)
    servers = [mesh.start_xds_server(MAX_CONNECTION_AGE="1") for _ in range(2)]
    with (
        ClusterIp(*(server.address for server in servers)) as service,
        mesh.load(service.address) as load,
        Crowd(service.address, 20, NAME) as crowd,
        scenario("clients move between two xds-servers repeatedly", load) as run,
    ):
        load.wait_for(mesh.hello.names)
        crowd.wait_until_answered()
        run.now("all clients move repeatedly")
        crowd.wait_until_answered(moves=10 * crowd.clients)
        assert crowd.differences == [], "every type was sent again, with the same version"
        run.note(f"{crowd.moves} moves; after each, all four types arrived with unchanged versions")

        run.now("the same, and a pod joins")
        mesh.hello.scale(4)
        ready = time.monotonic()
        load.wait_for(mesh.hello.names)
        last = crowd.wait_for(pod.address for pod in mesh.hello.pods)
        run.recovered(last - ready, "a new pod ready → the last moving client has it")


def test_connections_even_out(mesh: Mesh, scenario) -> None:
    mesh.hello.scale(2)
    first = mesh.start_xds_server(MAX_CONNECTION_AGE=str(AGE))
    with (
        ClusterIp(first.address) as service,
        mesh.load(service.address) as load,
        Crowd(service.address, 50, NAME) as crowd,
        scenario("a second xds-server is added; 54 clients", load) as run,
    ):
        total = crowd.clients + CLIENTS
        crowd.wait_until_answered()
        wait_until("all streams on the first", lambda: streams(first) == total)
        run.now("a second xds-server joins")
        second = mesh.start_xds_server(MAX_CONNECTION_AGE=str(AGE))
        service.servers.append(second.address)
        joined = time.monotonic()
        # Each gets half on average; the probability that one gets less than a fifth is 1 in 50,000.
        fair = total // 5
        wait_until(
            "a fair share on both",
            lambda: min(streams(first), streams(second)) >= fair and crowd.moves >= crowd.clients,
        )
        run.recovered(
            time.monotonic() - joined,
            f"the second ready → every client has reconnected; MAX_CONNECTION_AGE={AGE}",
        )
        assert time.monotonic() - joined < UNTIL_MOVED + 10, (
            "MAX_CONNECTION_AGE moved the clients, nothing else"
        )
        crowd.wait_until_answered()
        run.note(f"{streams(first)} and {streams(second)} streams")
        assert crowd.differences == []


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_rolling_update(mesh: Mesh, scenario, replicas: int) -> None:
    """A new server is ready before an old one stops: maxSurge 1, maxUnavailable 0."""
    mesh.hello.scale(2)
    servers = [mesh.start_xds_server() for _ in range(replicas)]
    with (
        ClusterIp(*(server.address for server in servers)) as service,
        mesh.load(service.address) as load,
        scenario(f"rolling update of {replicas} xds-server{'s' * (replicas - 1)}", load) as run,
    ):
        load.wait_for(mesh.hello.names)
        for old in servers:
            run.now("a new xds-server starts, an old one stops")
            service.servers.append(mesh.start_xds_server().address)
            old.send(signal.SIGTERM)
            stopping = time.monotonic()
            time.sleep(LATE)  # the fault: kube-proxy hears of the end only now
            service.servers.remove(old.address)
            mesh.hello.scale(len(mesh.hello.pods) + 1)
            run.recovered(
                load.wait_for(mesh.hello.names) - stopping,
                "the old xds-server stopping → each client answered by a pod added since",
            )
            assert old.wait() == 0


def test_the_second_server_of_a_bootstrap(mesh: Mesh, scenario) -> None:
    """Clients use the second server if they lack resources and the first is unavailable, and return to the first.

    https://github.com/grpc/proposal/blob/master/A71-xds-fallback.md
    """
    mesh.hello.scale(2)
    first, second = mesh.start_xds_server(), mesh.start_xds_server()
    kill(first)
    with (
        mesh.load(first.address, second.address) as load,
        scenario("a bootstrap with two xds-servers, the first unavailable", load) as run,
    ):
        load.wait_for(mesh.hello.names)
        assert streams(second) == CLIENTS
        run.now("the second serves; a pod joins")
        mesh.hello.scale(3)
        load.wait_for(mesh.hello.names)
        run.now("the first is back")
        first = mesh.start_again(first)
        back = time.monotonic()
        wait_until("all to return", lambda: (streams(first), streams(second)) == (CLIENTS, 0))
        run.recovered(time.monotonic() - back, "the first ready → all clients use it again")
        run.now("the first serves; a pod joins")
        mesh.hello.scale(4)
        load.wait_for(mesh.hello.names)


def responses_of(server: XdsServer) -> dict[str, tuple[dict[str, bytes], str]]:
    """Subscribes to all targets and returns each type's resources and version."""
    with AdsClient(server.address) as client:
        client.walk(*TARGETS)
        return {kind.DESCRIPTOR.name: (held.resources, held.version) for kind, held in client.held.items()}


def wait_until_known(server: XdsServer, endpoints: list[str]) -> None:
    with AdsClient(server.address) as client:
        client.walk(NAME)
        wait_until(f"{endpoints} to be known", lambda: client.addresses(NAME) == endpoints)
