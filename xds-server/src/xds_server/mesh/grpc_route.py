"""One GRPCRoute by itself: where it may be attached, and the rules that it makes. Pure.

- Its parents in the mesh are Services (GEP-1294); references to anything else, such as Gateways, belong to others.
- A rule that gRPC clients can't follow is dropped, and the others are served. A route without a rule left is not
  accepted: the port's implicit route stays. So it is with a route that has no rules: the specification calls a route
  accepted if at least one rule is implemented.
- A backend that does not exist fails its share of the requests; its rule is served.

``route_status`` makes the status. https://gateway-api.sigs.k8s.io/reference/spec/#grpcroute
https://gateway-api.sigs.k8s.io/geps/gep-1294/
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from xds_server.mesh import backends
from xds_server.mesh.budget import Cost, cost
from xds_server.mesh.matches import Specificity, UnsupportedError, read
from xds_server.model.service import PortName, Service, ServiceName
from xds_server.model.traffic import EVERY_PATH, CallPolicy, Match, Rule, Unavailable, UnavailableReason
from xds_server.objects.gateway import GROUP, GRPCRoute, ParentReference, RouteRule
from xds_server.objects.meta import Key

MAX_PARENTS = 32
MAX_RULES = 16
MAX_MATCHES = 64
MAX_ALL_MATCHES = 128

Services = Mapping[ServiceName, Service]
PolicyOf = Callable[[Key, str], CallPolicy]
"""The policy of a route's rule, by the route's key and the rule's name (empty: it has none)."""


class RankedRule(NamedTuple):
    """A rule with one match, and what decides whether it is tried before another one of the same route."""

    specificity: Specificity
    rule: Rule


class Parent(NamedTuple):
    """A Service that a route names as its parent.

    Attributes:
        reference: As the route has it.
        ports: The ports that it means; none if there is no such Service, or it has no such TCP port.
    """

    reference: ParentReference
    ports: frozenset[PortName]


class DroppedRule(NamedTuple):
    """A rule that can't be served.

    Attributes:
        rule: Its place, and its name if it has one.
        name: Its name; empty if it has none.
        text: What is wrong; it begins with the field.
        reason: For the condition Accepted, if no rule is left.
    """

    rule: str
    name: str
    text: str
    reason: str


class Refusal(NamedTuple):
    """Why no parent accepts a route: the reason and the message of the condition Accepted."""

    reason: str
    message: str


class RouteReading(NamedTuple):
    """What one route asks for, whatever other routes there are.

    Attributes:
        created: The route's creationTimestamp.
        generation: Of the spec.
        parents: Those that are Services.
        rules: One for each match, in the order of the spec.
        names: Of the rules that are served; a rule may have none.
        cost: Of all rules.
        refusal: None if its parents decide.
        dropped: The rules that are not among ``rules``.
        unresolved: The backends that can't be found, each with its field; None if they were not looked for.
        remarks: What else is not served as it is written.
    """

    created: str = ""
    generation: int = 0
    parents: tuple[Parent, ...] = ()
    rules: tuple[RankedRule, ...] = ()
    names: frozenset[str] = frozenset()
    cost: Cost = Cost()
    refusal: Refusal | None = None
    dropped: tuple[DroppedRule, ...] = ()
    unresolved: tuple[tuple[str, Unavailable], ...] | None = ()
    remarks: tuple[str, ...] = ()

    @property
    def ports(self) -> frozenset[PortName]:
        """Where its rules should replace the implicit route."""
        return frozenset() if self.refusal else frozenset().union(*(parent.ports for parent in self.parents))


NOTHING = RouteReading()


class _Rules(NamedTuple):
    """What was read of a route's rules."""

    ranked: tuple[RankedRule, ...]
    names: frozenset[str]
    dropped: tuple[DroppedRule, ...]
    unresolved: tuple[tuple[str, Unavailable], ...]
    remarks: tuple[str, ...]


def references(key: Key, route: GRPCRoute) -> frozenset[ServiceName]:
    """The Services that a route names, whether they exist or not: it has to be read anew if one changes."""
    named = {parent_service(key, parent) for parent in route.spec.parent_refs or () if _is_ours(parent)}
    for rule in route.spec.rules or ():
        for backend in rule.backend_refs or ():
            if name := backends.service_of(backend, key[0]):
                named.add(name)
    return frozenset(named)


def read_route(key: Key, route: GRPCRoute, services: Services, policy_of: PolicyOf) -> RouteReading:
    """Finds the ports that a route may be attached to, and makes its rules."""
    reading = RouteReading(
        created=route.metadata.creation_timestamp,
        generation=route.metadata.generation,
        parents=tuple(
            Parent(parent, _ports(key, parent, services))
            for parent in route.spec.parent_refs or ()
            if _is_ours(parent)
        )[:MAX_PARENTS],
        remarks=tuple(_remarks(route)),
    )
    if not reading.parents:
        return reading
    if refusal := _beyond_limits(route):
        # Its rules may be any number, and are not read.
        return reading._replace(refusal=refusal, unresolved=None)
    rules = _read_rules(key, route, services, policy_of)
    return reading._replace(
        rules=rules.ranked,
        names=rules.names,
        cost=cost(ranked.rule for ranked in rules.ranked),
        refusal=None if rules.ranked else _without_rules(rules),
        dropped=rules.dropped,
        unresolved=rules.unresolved,
        remarks=reading.remarks + rules.remarks,
    )


def parent_service(key: Key, parent: ParentReference) -> ServiceName:
    """The Service that a parent reference of a route means."""
    return ServiceName(parent.namespace or key[0], parent.name)


def dropped_text(dropped: tuple[DroppedRule, ...]) -> str:
    """All dropped rules; the specification says how it begins."""
    text = "; ".join(f"{drop.rule}: {drop.text}" for drop in dropped)
    return f"Dropped Rule {text}"


def _is_ours(parent: ParentReference) -> bool:
    """Whether it is a core Service: the group has to be given as ``""``, as it is the Gateway API's otherwise."""
    return parent.group == "" and parent.kind == "Service"


def _ports(key: Key, parent: ParentReference, services: Services) -> frozenset[PortName]:
    """The ports that one parentRef means: all of the Service, or those that match both port and sectionName."""
    service = services.get(parent_service(key, parent))
    if service is None:
        return frozenset()
    return frozenset(
        PortName(service.name, port.number)
        for port in service.ports
        if parent.port in (None, port.number) and (parent.section_name or port.name) == port.name
    )


def _read_rules(key: Key, route: GRPCRoute, services: Services, policy_of: PolicyOf) -> _Rules:
    """Reads all rules."""
    ranked: list[RankedRule] = []
    dropped: list[DroppedRule] = []
    unresolved: list[tuple[str, Unavailable]] = []
    remarks: list[str] = []
    names: set[str] = set()
    served: set[str] = set()
    for index, rule in enumerate(route.spec.rules or ()):
        field = f"rules[{index}]"
        label = f"{field} ({rule.name})" if rule.name else field
        # Unlike the standard channel's definition, the specification wants names to be unique.
        if rule.name in names:
            remarks.append(f"{label}: the name is taken; a policy for it is used for all rules of that name")
        names.add(rule.name or "")
        references = rule.backend_refs or ()
        targets = tuple(backends.resolve(backend, key[0], services) for backend in references)
        unresolved += (
            (f"{field}.backendRefs[{place}]", target)
            for place, target in enumerate(targets)
            if isinstance(target, Unavailable)
        )
        try:
            matches = _read_matches(rule)
        except UnsupportedError as error:
            dropped.append(DroppedRule(label, rule.name or "", str(error), error.reason))
            continue
        nothing = backends.unavailable(
            UnavailableReason.NO_BACKEND, f"{field} of GRPCRoute {'/'.join(key)} has no backend with a weight"
        )
        shares = backends.share(references, targets, nothing)
        if not any(backend.weight != 0 for backend in references):
            remarks.append(str(nothing))
        served.add(rule.name or "")
        policy = policy_of(key, rule.name or "")
        ranked += (RankedRule(specificity, Rule(match, shares, policy)) for match, specificity in matches)
    return _Rules(tuple(ranked), frozenset(served), tuple(dropped), tuple(unresolved), tuple(remarks))


def _read_matches(rule: RouteRule) -> list[tuple[Match, Specificity]]:
    """Checks a rule, and reads its matches.

    Raises:
        UnsupportedError: It can't be served.
    """
    backends.check_filters(rule.filters, "filters")
    backends.check(rule.backend_refs or (), "backendRefs")
    if rule.session_persistence is not None:
        raise UnsupportedError("sessionPersistence: is not supported")
    matches = rule.matches or ()
    if len(matches) > MAX_MATCHES:
        raise UnsupportedError(f"matches: {len(matches)} matches; at most {MAX_MATCHES} are allowed")
    if not matches:
        return [(Match(EVERY_PATH), Specificity(0, 0, 0))]
    return [read(match, f"matches[{index}]") for index, match in enumerate(matches)]


def _beyond_limits(route: GRPCRoute) -> Refusal | None:
    """Why a route is beyond the limits of the definition, which nothing has checked in files; None if it is not."""
    spec = route.spec
    written = spec.rules or ()
    matches = sum(len(rule.matches or ()) for rule in written)
    if len(spec.parent_refs or ()) > MAX_PARENTS:
        text = f"spec.parentRefs: {len(spec.parent_refs or ())}; at most {MAX_PARENTS} are allowed"
    elif len(written) > MAX_RULES:
        text = f"spec.rules: {len(written)}; at most {MAX_RULES} are allowed"
    elif matches > MAX_ALL_MATCHES:
        text = f"spec.rules: {matches} matches in all; at most {MAX_ALL_MATCHES} are allowed"
    else:
        return None
    return Refusal("UnsupportedValue", text)


def _without_rules(rules: _Rules) -> Refusal:
    """Why no rule is left."""
    if not rules.dropped:
        return Refusal("UnsupportedValue", "spec.rules: there are none; the implicit route stays")
    only_filters = all(drop.reason == "IncompatibleFilters" for drop in rules.dropped)
    return Refusal(
        "IncompatibleFilters" if only_filters else "UnsupportedValue",
        f"{dropped_text(rules.dropped)}. No rule is left; the implicit route stays",
    )


def _remarks(route: GRPCRoute) -> Iterator[str]:
    """Hints at references that look like ours and are not."""
    for index, parent in enumerate(route.spec.parent_refs or ()):
        if parent.kind == "Service" and parent.group in (None, "core", "v1", GROUP):
            group = GROUP if parent.group is None else parent.group
            yield f'parentRefs[{index}] is of the group {group}, and is ignored; set group: ""'
