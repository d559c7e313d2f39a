"""Listener of a gRPC server that uses xDS: whether it encrypts, and whom it lets in.

https://github.com/grpc/proposal/blob/master/A36-xds-for-servers.md
"""

from collections.abc import Iterator, Mapping, Sequence

from envoy.config.core.v3 import address_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as manager_pb2,
)

from xds_server.model.service import PodPort, PortName, SocketAddress
from xds_server.model.tables import ANY_NAMESPACE, POLICIES, READ, SECURED, SERVERS
from xds_server.model.traffic import Policy, Tls, UnavailableReason
from xds_server.resources.features import authorization, tls
from xds_server.resources.lookup import Lookup
from xds_server.resources.types import Resource, pack, serialise


def build(name: str, address: SocketAddress, lookup: Lookup) -> Resource | None:
    """Builds the Listener of a server.

    A server that no Service selects waits if a policy may concern it, as its EndpointSlice may be still to come; otherwise
    it gets no security.

    Args:
        name: As the server spells it.
        address: Where it listens, often on all addresses. The Listener has to repeat it.
        lookup: What is known, and the server, which is a client here.
    """
    policies = list(security(address, lookup).values())
    if not policies and (reason := _why_it_waits(address, lookup)):
        lookup.remark = reason
        return None
    wanted = strictest(policies)
    if wanted is not None and len({policy.tls.provider for policy in policies if policy.tls is not None}) > 1:
        lookup.remark = (
            f"the policies of the server {_server(address, lookup)} name several certificate providers; "
            f"{wanted.provider} is used"
        )
    chain = listener_components_pb2.FilterChain(
        name="default",
        filters=[listener_components_pb2.Filter(name="manager", typed_config=pack(_manager(name, policies)))],
    )
    tls.apply_to_server(chain, wanted)
    socket = address_pb2.SocketAddress(address=address.ip, port_value=address.port)
    listener = listener_pb2.Listener(
        name=name, address=address_pb2.Address(socket_address=socket), filter_chains=[chain]
    )
    return serialise(name, listener)


def security(address: SocketAddress, lookup: Lookup) -> Mapping[PortName, Policy]:
    """The ports of Services that lead to the server, in namespaces with security policies; and the policy of each."""
    return {port: lookup.get(POLICIES, port) or Policy() for port in _ports(address, lookup)}


def _ports(address: SocketAddress, lookup: Lookup) -> Sequence[PortName]:
    """The ports that lead to the server, known by its pod, or without one by where it connects from.

    A pod is not known by its address, too: an EndpointSlice may still have that of a pod before it.
    """
    if pod := lookup.client_pod:
        return lookup.get(SERVERS, PodPort(lookup.client_namespace, pod, address.port)) or ()
    found = _at_address(address, lookup)
    if lookup.client_identity:
        return [port for port in found if port.service.namespace == lookup.client_namespace]
    # Whoever may write EndpointSlices can name any address: of several namespaces, nobody knows which is its own.
    return found if len({port.service.namespace for port in found}) == 1 else ()


def _at_address(address: SocketAddress, lookup: Lookup) -> Sequence[PortName]:
    ip = lookup.client_address
    return (lookup.get(SERVERS, SocketAddress(ip, address.port)) if ip else None) or ()


def _why_it_waits(address: SocketAddress, lookup: Lookup) -> str:
    """Why a server that no Service is known to select may be one that a security policy concerns; empty if it is none."""
    is_restricted = lookup.get(READ, ANY_NAMESPACE) is not None
    server = _server(address, lookup)
    if lookup.client_pod or lookup.client_identity:
        if is_restricted and lookup.get(READ, lookup.client_namespace) is None:
            return f"the server {server} waits: its namespace is none of NAMESPACES"
        if lookup.get(SECURED, lookup.client_namespace) is not None:
            return f"no Service selects the server {server}; it waits, as there are security policies"
        if lookup.client_identity or not _at_address(address, lookup):
            return ""
        return (
            f"the server {server} has the address of one that security policies may concern; it waits: POD_NAME or "
            "NAMESPACE in node.metadata of its bootstrap may be wrong"
        )
    if not is_restricted and lookup.get(SECURED, ANY_NAMESPACE) is None:
        return ""
    return (
        f"the server {server} names no pod in its bootstrap; it waits, as it may be one that a "
        "security policy concerns: set POD_NAME and NAMESPACE in node.metadata"
    )


def strictest(policies: Sequence[Policy]) -> Tls | None:
    """The TLS of a server that several Services lead to: a client that may have less is refused."""
    found = [policy.tls for policy in policies if policy.tls is not None]
    return max(found, key=lambda each: each.is_mutual, default=None)


def _manager(name: str, policies: Sequence[Policy]) -> manager_pb2.HttpConnectionManager:
    # A server answers what has a non-forwarding route, and refuses all other calls with UNAVAILABLE (gRFC A36).
    route = route_components_pb2.Route(match=route_components_pb2.RouteMatch(prefix=""))
    if any(policy.is_closed for policy in policies):
        route.route.cluster = UnavailableReason.INVALID_POLICY.value
    else:
        route.non_forwarding_action.SetInParent()
    host = route_components_pb2.VirtualHost(name="server", domains=["*"], routes=[route])
    return manager_pb2.HttpConnectionManager(
        stat_prefix=name,
        route_config=route_pb2.RouteConfiguration(name="server", virtual_hosts=[host]),
        http_filters=[
            *_authorizations(policies),
            manager_pb2.HttpFilter(name="router", typed_config=pack(router_pb2.Router())),
        ],
    )


def _authorizations(policies: Sequence[Policy]) -> Iterator[manager_pb2.HttpFilter]:
    """Yields a filter for each authorization: a call has to be allowed by all Services that lead to the server."""
    found = dict.fromkeys(policy.authorization for policy in policies if policy.authorization is not None)
    for place, each in enumerate(found):
        yield authorization.http_filter(f"authorization-{place}", each)


def _server(address: SocketAddress, lookup: Lookup) -> str:
    if pod := lookup.client_pod:
        return f"of pod {pod} in {lookup.client_namespace}, port {address.port}"
    ip = lookup.client_address or "an unknown address"
    return f"at {ip}, port {address.port}"
