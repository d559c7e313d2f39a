"""Many xDS clients in one process, each with its own connection, that check the responses.

    followers.py ADDRESS CLIENTS NAME

Each subscribes to the Listener, the RouteConfiguration, the Cluster and the ClusterLoadAssignment of NAME and accepts
everything. When its stream ends, it reconnects and sends the versions that it has, as gRPC's clients do. After SIGUSR1
all drop their connections and reconnect at once. Prints a line of JSON a few times a second.
"""

import asyncio
import collections
import json
import random
import signal
import sys
import time
from typing import Any

import grpc
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.service.discovery.v3.ads_pb2_grpc import AggregatedDiscoveryServiceStub
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest, DiscoveryResponse

REPORT_EVERY = 0.2
PAUSE = 0.2
"""Seconds, at most, until a client whose stream has ended reconnects."""
ENDPOINTS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
TYPES = (
    "type.googleapis.com/envoy.config.listener.v3.Listener",
    "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
    "type.googleapis.com/envoy.config.cluster.v3.Cluster",
    ENDPOINTS,
)


class Follower:
    """One client. Times are monotonic, so that they are comparable between the processes of a machine."""

    def __init__(self, address: str, name: str) -> None:
        self.answered: set[str] = set()
        self.moves = 0
        self.differences: list[str] = []
        self.endpoints = ""
        self.arrived = 0.0
        self.pushes = 0
        self.most_a_second = 0
        self._address = address
        self._name = name
        self._versions: dict[str, str] = {}
        self._last_second: collections.deque[float] = collections.deque()
        self._stay: asyncio.Task[None] | None = None

    async def follow(self) -> None:
        while True:
            self._stay = asyncio.create_task(self._follow_one_server())
            await asyncio.wait([self._stay])
            if not self._stay.cancelled() and not isinstance(
                error := self._stay.exception(), grpc.aio.AioRpcError
            ):
                raise AssertionError("the stream ended without a status") from error
            self.answered.clear()
            self.moves += 1
            await asyncio.sleep(random.uniform(0, PAUSE))

    def leave(self) -> None:
        """Closes the connection."""
        if self._stay is not None:
            self._stay.cancel()

    async def _follow_one_server(self) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(self._address, options=options) as channel:
            stream = AggregatedDiscoveryServiceStub(channel).StreamAggregatedResources(wait_for_ready=True)
            for kind in TYPES:
                await stream.write(self._request(kind, ""))
            async for response in stream:
                self._take(response)
                await stream.write(self._request(response.type_url, response.nonce))

    def _request(self, kind: str, nonce: str) -> Any:
        version = self._versions.get(kind, "")
        request = DiscoveryRequest(
            type_url=kind, resource_names=[self._name], version_info=version, response_nonce=nonce
        )
        request.node.id = "follower"
        return request

    def _take(self, response: DiscoveryResponse) -> None:
        kind, now = response.type_url, time.monotonic()
        before, self._versions[kind] = self._versions.get(kind), response.version_info
        if kind not in self.answered:
            self.answered.add(kind)
            if before not in (None, response.version_info) or len(response.resources) != 1:
                self.differences.append(f"{kind}: {before}, then {response.version_info}")
        if kind == ENDPOINTS:
            self.endpoints, self.arrived = _addresses(response.resources[0].value), now
            self.pushes += 1
            self._last_second.append(now)
            while self._last_second[0] < now - 1:
                self._last_second.popleft()
            self.most_a_second = max(self.most_a_second, len(self._last_second))


def _addresses(encoded: bytes) -> str:
    sockets = [
        endpoint.endpoint.address.socket_address
        for locality in ClusterLoadAssignment.FromString(encoded).endpoints
        for endpoint in locality.lb_endpoints
    ]
    return " ".join(sorted(f"{one.address}:{one.port_value}" for one in sockets))


def report(followers: list[Follower]) -> dict[str, Any]:
    held: dict[str, list[float]] = {}
    for one in followers:
        count, last = held.get(one.endpoints, (0, 0.0))
        held[one.endpoints] = [count + 1, max(last, one.arrived)]
    return {
        "answered": sum(len(one.answered) == len(TYPES) for one in followers),
        "moves": sum(one.moves for one in followers),
        "differences": [each for one in followers for each in one.differences],
        "held": held,
        "pushes": max(one.pushes for one in followers),
        "most_a_second": max(one.most_a_second for one in followers),
    }


async def main(address: str, clients: int, name: str) -> None:
    followers = [Follower(address, name) for _ in range(clients)]

    def scatter() -> None:
        for one in followers:
            one.leave()

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, scatter)
    async with asyncio.TaskGroup() as group:
        for one in followers:
            group.create_task(one.follow())
        while True:
            await asyncio.sleep(REPORT_EVERY)
            print(json.dumps(report(followers)), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
