"""An ADS client that is not a gRPC client: it exposes the raw responses."""

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import grpc
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from envoy.service.discovery.v3.ads_pb2_grpc import AggregatedDiscoveryServiceStub
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest

from tests.support.waiting import wait_until


@dataclass
class Held:
    """The version and resources that a client holds of a type."""

    version: str = ""
    resources: dict[str, bytes] = field(default_factory=dict)


class AdsClient:
    """One stream to an xDS server; it accepts every response, unless `reason` is set: then it sends NACKs with it."""

    def __init__(
        self, address: str, *, namespace: str = "default", credentials: grpc.ChannelCredentials | None = None
    ) -> None:
        self.reason = ""
        self.held: dict[type[Any], Held] = {}
        self._names: dict[type[Any], list[str]] = {}
        self._namespace = namespace
        self.node_id = "raw"
        self.metadata: dict[str, str] = {}
        """More that the node says of itself."""
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channel = (
            grpc.secure_channel(address, credentials, options)
            if credentials
            else grpc.insecure_channel(address, options)
        )
        stub = AggregatedDiscoveryServiceStub(self._channel)
        self._call = stub.StreamAggregatedResources(iter(self._requests.get, None), wait_for_ready=True)
        self.error: grpc.RpcError | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._requests.put(None)
        self._call.cancel()
        self._reader.join()
        self._channel.close()

    def ask(self, kind: type[Any], *names: str) -> Held:
        """Subscribes to resources and waits until it holds all of them."""
        self.subscribe(kind, *names)
        wait_until(
            f"{names} as {kind.DESCRIPTOR.name}", lambda: set(names) <= self._held(kind).resources.keys()
        )
        return self._held(kind)

    def subscribe(self, kind: type[Any], *names: str) -> None:
        """Subscribes to resources, and does not wait."""
        self._names[kind] = list(names)
        self._send(kind)

    def ask_for_many(self, kind: type[Any], one: str, others: Sequence[str]) -> None:
        """Subscribes to many resources, one of which exists, and waits until it holds that one."""
        self.subscribe(kind, *others, one)
        wait_until(f"{one} as {kind.DESCRIPTOR.name}", lambda: one in self._held(kind).resources)

    def walk(self, *targets: str) -> None:
        """Subscribes to everything that a gRPC client needs to call these targets."""
        listeners = [Listener.FromString(value) for value in self.ask(Listener, *targets).resources.values()]
        routes = [
            RouteConfiguration.FromString(value)
            for value in self.ask(RouteConfiguration, *map(_route_name, listeners)).resources.values()
        ]
        clusters = [
            Cluster.FromString(value)
            for value in self.ask(Cluster, *map(_cluster_name, routes)).resources.values()
        ]
        self.ask(
            ClusterLoadAssignment, *(one.eds_cluster_config.service_name or one.name for one in clusters)
        )

    def wait_for_another(self, kind: type[Any], version: str) -> None:
        """Waits for a response with another version."""
        wait_until(f"{kind.DESCRIPTOR.name} to change", lambda: self._held(kind).version != version)

    def wait_for_end(self) -> grpc.RpcError:
        """Waits until the server ends the stream, and returns the error."""
        wait_until("the stream to end", lambda: self.error)
        assert self.error
        return self.error

    def addresses(self, name: str) -> list[str]:
        """Returns the addresses of a ClusterLoadAssignment."""
        assignment = ClusterLoadAssignment.FromString(self._held(ClusterLoadAssignment).resources[name])
        sockets = [
            endpoint.endpoint.address.socket_address
            for locality in assignment.endpoints
            for endpoint in locality.lb_endpoints
        ]
        return sorted(f"{one.address}:{one.port_value}" for one in sockets)

    def _held(self, kind: type[Any]) -> Held:
        return self.held.setdefault(kind, Held())

    def _send(self, kind: type[Any], **fields: Any) -> None:
        request = DiscoveryRequest(type_url=_type_url(kind), resource_names=self._names[kind], **fields)
        request.node.id = self.node_id
        if self._namespace:
            request.node.metadata["NAMESPACE"] = self._namespace
        request.node.metadata.update(self.metadata)
        self._requests.put(request)

    def _read(self) -> None:
        try:
            for response in self._responses():
                kind = next(kind for kind in self._names if _type_url(kind) == response.type_url)
                messages = [(kind.FromString(one.value), one.value) for one in response.resources]
                held = self._held(kind)
                if self.reason:
                    error = {"code": grpc.StatusCode.INVALID_ARGUMENT.value[0], "message": self.reason}
                    self._send(
                        kind,
                        version_info=held.version,
                        response_nonce=response.nonce,
                        error_detail=error,
                    )
                    continue
                held.version = response.version_info
                held.resources |= {_name(message): value for message, value in messages}
                self._send(kind, version_info=response.version_info, response_nonce=response.nonce)
        except grpc.RpcError as error:
            self.error = error

    def _responses(self) -> Iterator[Any]:
        return iter(self._call)


def _type_url(kind: type[Any]) -> str:
    return f"type.googleapis.com/{kind.DESCRIPTOR.full_name}"


def _name(message: Any) -> str:
    name: str = message.cluster_name if isinstance(message, ClusterLoadAssignment) else message.name
    return name


def _route_name(listener: Any) -> str:
    manager = HttpConnectionManager()
    assert listener.api_listener.api_listener.Unpack(manager)
    name: str = manager.rds.route_config_name
    return name


def _cluster_name(route: Any) -> str:
    name: str = route.virtual_hosts[0].routes[0].route.cluster
    return name
