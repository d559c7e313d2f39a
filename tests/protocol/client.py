"""A model of an xDS client: it keeps the state that a client keeps, and checks what a client would reject."""

from dataclasses import dataclass, field
from functools import partial

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.service.discovery.v3 import discovery_pb2

from xds_server.ads.limits import Limits, Usage
from xds_server.ads.session import Session
from xds_server.cache.cache import Cache
from xds_server.model.client import Client as Identity
from xds_server.model.service import Endpoint, Port, Service, ServiceName, SocketAddress
from xds_server.model.tables import ENDPOINTS, SERVICES, Entry
from xds_server.resources.builders import builder
from xds_server.resources.types import Key, ResourceType

LDS, RDS, CDS, EDS = ResourceType.LISTENER, ResourceType.ROUTE, ResourceType.CLUSTER, ResourceType.ENDPOINTS

MESSAGES = {
    LDS: listener_pb2.Listener,
    RDS: route_pb2.RouteConfiguration,
    CDS: cluster_pb2.Cluster,
    EDS: endpoint_pb2.ClusterLoadAssignment,
}


def service(name="web", *ips, namespace="shop", ports=(80,)):
    """Returns the table entries of a service whose pods have these addresses, on every port."""
    endpoints = tuple(Endpoint("", (SocketAddress(ip, 8080),)) for ip in sorted(ips))
    found = Service(ServiceName(namespace, name), tuple(Port("", number, True) for number in ports))
    return {
        Entry(SERVICES, found.name): found,
        **{Entry(ENDPOINTS, port): endpoints for port in found.port_names},
    }


def make_cache():
    """Returns an empty cache."""
    return Cache(partial(builder, cluster_domain="cluster.local", load_reports=True))


def publish(cache, *services, gone=()):
    """Publishes services as the store does: a removed port also removes its endpoints."""
    changes = dict.fromkeys(Entry(SERVICES, ServiceName("shop", name)) for name in gone)
    for entries in services:
        changes.update(entries)
    for entry in [entry for entry in changes if entry.table is SERVICES]:
        before, after = cache.tables[SERVICES].get(entry.key), changes[entry]
        for port in before.port_names if before else ():
            if after is None or port not in after.port_names:
                changes[Entry(ENDPOINTS, port)] = None
    cache.publish(changes)


def find(cache, kind, name, namespace="shop"):
    """Returns a resource as built for a client in a namespace."""
    return cache.get(Key(kind, name), Identity(namespace))


@dataclass
class Held:
    """The client's state of one type."""

    names: list[str] = field(default_factory=list)
    wildcard: bool = False
    was_named: bool = False
    nonce: str = ""
    version: str = ""
    offered: str = ""
    resources: dict[str, bytes] = field(default_factory=dict)

    def wants(self, name):
        return self.wildcard or name in self.names


class Client:
    """One stream."""

    def __init__(self, cache, *, namespace="shop", node_id="node"):
        self.woken = 0
        self.session = Session(cache, Usage(Limits()).open("10.0.0.1"), flush=self._wake)
        self.held = {kind: Held() for kind in ResourceType}
        self.nonces = set()
        self._node: tuple[str, str] | None = (node_id, namespace)

    def _wake(self):
        self.woken += 1

    def ask(self, kind, names, *, nonce=None, version=None, error=None):
        """Returns a request, and drops the resources it unsubscribes from; fields default to those of a correct client."""
        held = self.held[kind]
        held.names = list(names)
        held.was_named |= bool(names)
        held.wildcard = kind.is_full_state and ("*" in names or not held.was_named)
        held.resources = {n: r for n, r in held.resources.items() if held.wants(n)}
        request = discovery_pb2.DiscoveryRequest(
            type_url=kind.value,
            resource_names=names,
            response_nonce=held.nonce if nonce is None else nonce,
            version_info=held.version if version is None else version,
        )
        if self._node:
            request.node.id, namespace = self._node
            request.node.metadata.update({"NAMESPACE": namespace})
            self._node = None
        if error is not None:
            request.error_detail.code = 3
            request.error_detail.message = error
        return request

    def take(self, response, *, refuse=False):
        """Processes one response; returns its type, its names, and the request that answers it."""
        message = discovery_pb2.DiscoveryResponse.FromString(response.body)
        kind = ResourceType(message.type_url)
        assert kind is response.type
        assert message.version_info
        assert message.nonce
        assert message.nonce not in self.nonces, "a nonce must be unique on its stream"
        self.nonces.add(message.nonce)
        names = [_name(kind, item) for item in message.resources]
        assert len(names) == len(set(names)), "a response must not contain a resource twice"
        held = self.held[kind]
        held.nonce, held.offered = message.nonce, message.version_info
        found = {n: i.value for n, i in zip(names, message.resources, strict=True) if held.wants(n)}
        if refuse:
            # A client keeps its resources after a NACK, but still drops those that were deleted (gRFC A46).
            found = {n: held.resources[n] for n in found if n in held.resources}
        held.resources = found if kind.is_full_state else {**held.resources, **found}
        if refuse:
            return kind, sorted(names), self.ask(kind, held.names, error="refused on purpose")
        held.version = message.version_info
        return kind, sorted(names), self.ask(kind, held.names)

    def send(self, kind, names, **fields):
        """Makes the session process a request."""
        return self.session.request(self.ask(kind, names, **fields))

    def next(self):
        """The first response of a new round, if there is one."""
        return next(self.session.round(), None)

    def receive(self, *, ack=True, refuse=()):
        """Processes every pending response; returns them as (type, names), in order."""
        seen = []
        while (response := self.next()) is not None:
            kind, names, answer = self.take(response, refuse=response.type in refuse)
            seen.append((kind, names))
            if ack:
                self.session.request(answer)
        return seen


def _name(kind, item):
    message = MESSAGES[kind].FromString(item.value)
    assert item.type_url == kind.value
    return message.cluster_name if kind is EDS else message.name
