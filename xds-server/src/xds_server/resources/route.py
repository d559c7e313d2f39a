"""RouteConfiguration: which requests go to which clusters, and how.

Clients validate a RouteConfiguration as a whole (gRFC A28), so what is in the model has to be what they accept.
"""

from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.type.matcher.v3 import regex_pb2, string_pb2

from xds_server.model.service import PortName
from xds_server.model.tables import CONSUMED, POLICIES, ROUTES
from xds_server.model.traffic import (
    Backend,
    CallPolicy,
    Header,
    Match,
    PathType,
    Policy,
    RingHash,
    RouteScope,
    Rule,
    Unavailable,
    UnavailableReason,
)
from xds_server.resources.features import faults, retries, ring_hash, timeouts
from xds_server.resources.lookup import Lookup
from xds_server.resources.names import exists
from xds_server.resources.types import Resource, serialise


def build(port: PortName, lookup: Lookup) -> Resource | None:
    """Builds the RouteConfiguration of one port of one service."""
    if not exists(port, lookup):
        return None
    name = str(port)
    policy = lookup.get(POLICIES, port) or Policy()
    routes = [_route(rule, policy) for rule in rules(port, lookup)]
    # Clients match domains against the target, port included, in the spelling that was asked for: all are meant.
    host = route_components_pb2.VirtualHost(name=name, domains=["*"], routes=routes)
    return serialise(name, route_pb2.RouteConfiguration(name=name, virtual_hosts=[host]))


def rules(port: PortName, lookup: Lookup) -> tuple[Rule, ...]:
    """The rules that a client sees: those of its namespace, else those for all, else one that sends all to the port.

    Requests to a port that is closed fail. Its Cluster is not just left out: clients keep what is deleted
    (``ignore_resource_deletion``, gRFC A53), and would go on as before.
    """
    namespace = lookup.client_namespace if lookup.get(CONSUMED, port) else ""
    found = lookup.get(ROUTES, RouteScope(port, namespace))
    if found is None and namespace:
        found = lookup.get(ROUTES, RouteScope(port))
    return tuple(_without_closed(rule, lookup) for rule in found or (Rule(Match(), (Backend(port),)),))


def _without_closed(rule: Rule, lookup: Lookup) -> Rule:
    backends = tuple(
        backend._replace(target=_unless_closed(backend.target, lookup)) for backend in rule.backends
    )
    return rule._replace(backends=backends)


def _unless_closed(target: PortName | Unavailable, lookup: Lookup) -> PortName | Unavailable:
    if isinstance(target, Unavailable) or not (lookup.get(POLICIES, target) or Policy()).is_closed:
        return target
    return Unavailable(UnavailableReason.INVALID_POLICY, f"Service {target}")


def policies(port: PortName, lookup: Lookup) -> list[CallPolicy]:
    """The policy of the requests of each rule that a client sees."""
    policy = lookup.get(POLICIES, port) or Policy()
    return [rule.policy.over(policy.call) for rule in rules(port, lookup)]


def _route(rule: Rule, policy: Policy) -> route_components_pb2.Route:
    call = rule.policy.over(policy.call)
    route = route_components_pb2.Route(match=_match(rule.match))
    action = route.route
    if len(rule.backends) == 1:
        action.cluster = str(rule.backends[0].target)
    for backend in rule.backends if len(rule.backends) > 1 else ():
        cluster = action.weighted_clusters.clusters.add(name=str(backend.target))
        cluster.weight.value = backend.weight
    timeouts.apply(action, call.timeout)
    retries.apply(action, call.retry)
    faults.apply(route, call.fault)
    if isinstance(policy.load_balancing, RingHash):
        ring_hash.apply_hash(action, policy.load_balancing.header)
    return route


def _match(match: Match) -> route_components_pb2.RouteMatch:
    headers = [_header(header) for header in match.headers]
    path = match.path.value
    match match.path.type:
        case PathType.EXACT:
            return route_components_pb2.RouteMatch(path=path, headers=headers)
        case PathType.PREFIX:
            return route_components_pb2.RouteMatch(prefix=path, headers=headers)
        case PathType.REGEX:
            return route_components_pb2.RouteMatch(
                safe_regex=regex_pb2.RegexMatcher(regex=path), headers=headers
            )


def _header(header: Header) -> route_components_pb2.HeaderMatcher:
    matcher = (
        string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=header.value))
        if header.is_regex
        else string_pb2.StringMatcher(exact=header.value)
    )
    return route_components_pb2.HeaderMatcher(name=header.name, string_match=matcher)
