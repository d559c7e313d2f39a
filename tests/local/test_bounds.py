"""Clients that subscribe to as much as they can cost xds-server a bounded amount of memory, and others are served."""

import contextlib
from pathlib import Path

import grpc
import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration

from tests.support import objects
from tests.support.ads import AdsClient
from tests.support.relay import Relay
from tests.support.waiting import wait_until
from tests.support.xds_server import XdsServer

WEB = "web.default:50051"
CLIENTS, NAMES, MEBIBYTES = 16, 10_000, 400
TYPES = (Listener, RouteConfiguration, Cluster, ClusterLoadAssignment)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc, which Linux has")
def test_clients_that_subscribe_to_too_much_are_refused_and_others_are_served(tmp_path: Path) -> None:
    web = objects.endpoint_slice("web-1", "web", **objects.endpoints("10.0.0.1", port=80))
    objects.write(tmp_path / "web.yaml", objects.service("web"), web)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(XdsServer(tmp_path))
        server.wait_until_ready()
        greedy = []
        for number in range(CLIENTS):
            relay = stack.enter_context(Relay(server.address, f"127.0.0.{number + 2}"))
            greedy.append(stack.enter_context(AdsClient(relay.address)))
        for number, client in enumerate(greedy):
            for kind in TYPES:
                client.subscribe(
                    kind, *(f"service-{index}.namespace-{number}:50051" for index in range(NAMES))
                )
        wait_until("most to be refused", lambda: len(ended(greedy)) >= CLIENTS - 3)
        modest = stack.enter_context(AdsClient(server.address))
        modest.walk(WEB)
        assert modest.addresses(WEB) == ["10.0.0.1:80"]
        refused = ended(greedy)
        assert {error.code() for error in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert all("names, over the bound of" in str(error.details()) for error in refused)
        assert resident(server.pid) < MEBIBYTES
        assert not server.warnings("Traceback")


def ended(clients: list[AdsClient]) -> list[grpc.RpcError]:
    """Returns how streams ended, of those that did."""
    return [client.error for client in clients if client.error]


def resident(pid: int) -> float:
    """Returns the resident memory of a process in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024
