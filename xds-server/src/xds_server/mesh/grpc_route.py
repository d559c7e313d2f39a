"""One GRPCRoute by itself: where it is attached, the rules that it makes, its status. Pure.

- Its parents in the mesh are Services (GEP-1294); references to anything else, such as Gateways, belong to others.
- A rule that gRPC clients can't follow is dropped, and the others are served. A route without a rule left is not
  accepted: the port's implicit route stays. So it is with a route that has no rules: the specification calls a route
  accepted if at least one rule is implemented.
- A backend that does not exist fails its share of the requests; its rule is served.

https://gateway-api.sigs.k8s.io/reference/spec/#grpcroute
https://gateway-api.sigs.k8s.io/geps/gep-1294/
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from xds_server.mesh import backends
from xds_server.mesh.matches import Specificity, UnsupportedError, read
from xds_server.mesh.problems import Problem
from xds_server.mesh.statuses import Condition, Status, StatusEntry
from xds_server.mesh.texts import clipped
from xds_server.model.service import PortName, Service, ServiceName
from xds_server.model.traffic import EVERY_PATH, CallPolicy, Match, Rule
from xds_server.objects.gateway import GROUP, GRPCRoute, ParentReference, RouteRule
from xds_server.objects.kinds import GRPC_ROUTE
from xds_server.objects.meta import Key

MAX_PARENTS = 32
MAX_RULES = 16
MAX_MATCHES = 64
MAX_ALL_MATCHES = 128
MAX_MESSAGE = 4096
"""Characters of a condition's message; the API allows 32,768."""

Services = Mapping[ServiceName, Service]
PolicyOf = Callable[[Key, str], CallPolicy]
"""The policy of a route's rule, by the route's key and the rule's name (empty: it has none)."""


class RankedRule(NamedTuple):
    """A rule with one match, and what decides whether it is tried before another one of the same route."""

    specificity: Specificity
    rule: Rule


class Attached(NamedTuple):
    """What one route makes.

    Attributes:
        created: The route's creationTimestamp.
        ports: Where it replaces the implicit route.
        rules: One for each match, in the order of the spec.
        status: None if it could not be found out.
        problems: What is not served as it is written.
    """

    created: str
    ports: frozenset[PortName]
    rules: tuple[RankedRule, ...]
    status: Status | None
    problems: tuple[Problem, ...]


NOTHING = Attached("", frozenset(), (), None, ())


class _Dropped(NamedTuple):
    """A rule that can't be served."""

    rule: str
    text: str
    reason: str


class _Rules(NamedTuple):
    """What was read of a route's rules."""

    ranked: tuple[RankedRule, ...]
    dropped: tuple[_Dropped, ...]
    unresolved: tuple[tuple[str, backends.Unresolved], ...]
    remarks: tuple[str, ...]


def references(key: Key, route: GRPCRoute) -> frozenset[ServiceName]:
    """The Services that a route names, whether they exist or not: it has to be attached anew if one changes."""
    named = {_service(key, parent) for parent in route.spec.parent_refs or () if _is_ours(parent)}
    for rule in route.spec.rules or ():
        for backend in rule.backend_refs or ():
            if name := backends.service_of(backend, key[0]):
                named.add(name)
    return frozenset(named)


def attach(key: Key, route: GRPCRoute, services: Services, policy_of: PolicyOf) -> Attached:
    """Finds the ports that a route is attached to, and makes its rules and its status."""
    parents = [parent for parent in route.spec.parent_refs or () if _is_ours(parent)]
    if not parents:
        remarks = tuple(_remarks(route))
        return NOTHING._replace(
            status=Status(route.metadata.generation, ()), problems=_problems(key, remarks)
        )
    rules = _read_rules(key, route, services, policy_of)
    refusal = _refusal(route, rules)
    resolved = _resolved(rules)
    ports: set[PortName] = set()
    entries = []
    problems = [*_remarks(route), *rules.remarks]
    for parent in parents[:MAX_PARENTS]:
        found = _ports(key, parent, services)
        accepted = _accepted(key, parent, found) if refusal is None or not found else refusal
        if accepted.status:
            ports |= found
        else:
            problems.append(f"it is not accepted by {_parent_text(key, parent)}: {accepted.message}")
        conditions = [accepted, resolved]
        if accepted.status and rules.dropped:
            conditions.append(_condition("PartiallyInvalid", "UnsupportedValue", _dropped_text(rules)))
        entries.append(StatusEntry(_ref(parent), tuple(conditions)))
    problems += [f"dropped rule {drop.rule}: {drop.text}" for drop in rules.dropped]
    problems += [f"{field}: {target.target.reason}" for field, target in rules.unresolved]
    return Attached(
        created=route.metadata.creation_timestamp,
        ports=frozenset(ports),
        rules=rules.ranked if ports else (),
        status=Status(route.metadata.generation, tuple(entries)),
        problems=_problems(key, problems),
    )


def _is_ours(parent: ParentReference) -> bool:
    """Whether it is a core Service: the group has to be given as ``""``, as it is the Gateway API's otherwise."""
    return parent.group == "" and parent.kind == "Service"


def _service(key: Key, parent: ParentReference) -> ServiceName:
    return ServiceName(parent.namespace or key[0], parent.name)


def _ports(key: Key, parent: ParentReference, services: Services) -> frozenset[PortName]:
    """The ports that one parentRef means: all of the Service, or those that match both port and sectionName."""
    service = services.get(_service(key, parent))
    if service is None:
        return frozenset()
    return frozenset(
        PortName(service.name, port.number)
        for port in service.ports
        if parent.port in (None, port.number) and (parent.section_name or port.name) == port.name
    )


def _read_rules(key: Key, route: GRPCRoute, services: Services, policy_of: PolicyOf) -> _Rules:
    """Reads all rules; none of them if there are too many, which refuses the route."""
    ranked: list[RankedRule] = []
    dropped: list[_Dropped] = []
    unresolved: list[tuple[str, backends.Unresolved]] = []
    remarks: list[str] = []
    names: set[str] = set()
    rules = route.spec.rules or ()
    for index, rule in enumerate(rules if len(rules) <= MAX_RULES else ()):
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
            if isinstance(target, backends.Unresolved)
        )
        try:
            matches = _read_matches(rule)
        except UnsupportedError as error:
            dropped.append(_Dropped(label, str(error), error.reason))
            continue
        nothing = f"NoBackend: {field} of GRPCRoute {'/'.join(key)} has no backend with a weight"
        shares = backends.share(references, targets, nothing)
        if not any(backend.weight != 0 for backend in references):
            remarks.append(nothing)
        policy = policy_of(key, rule.name or "")
        ranked += (RankedRule(specificity, Rule(match, shares, policy)) for match, specificity in matches)
    return _Rules(tuple(ranked), tuple(dropped), tuple(unresolved), tuple(remarks))


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


def _refusal(route: GRPCRoute, rules: _Rules) -> Condition | None:
    """Why no parent accepts the route; None if its parents decide."""
    spec = route.spec
    written = spec.rules or ()
    matches = sum(len(rule.matches or ()) for rule in written)
    reason = "UnsupportedValue"
    if len(spec.parent_refs or ()) > MAX_PARENTS:
        text = f"spec.parentRefs: {len(spec.parent_refs or ())}; at most {MAX_PARENTS} are allowed"
    elif len(written) > MAX_RULES:
        text = f"spec.rules: {len(written)}; at most {MAX_RULES} are allowed"
    elif matches > MAX_ALL_MATCHES:
        text = f"spec.rules: {matches} matches in all; at most {MAX_ALL_MATCHES} are allowed"
    elif not written:
        text = "spec.rules: there are none; the implicit route stays"
    elif not rules.ranked:
        text = f"{_dropped_text(rules)}. No rule is left; the implicit route stays"
        if all(drop.reason == "IncompatibleFilters" for drop in rules.dropped):
            reason = "IncompatibleFilters"
    else:
        return None
    return _condition("Accepted", reason, text, status=False)


def _accepted(key: Key, parent: ParentReference, found: frozenset[PortName]) -> Condition:
    if found:
        return _condition("Accepted", "Accepted", "The rules replace the implicit route.")
    text = f"{_parent_text(key, parent)}: there is no such Service, or it has no such TCP port"
    return _condition("Accepted", "NoMatchingParent", text, status=False)


def _parent_text(key: Key, parent: ParentReference) -> str:
    service = _service(key, parent)
    text = f"Service {service.namespace}/{service.name}"
    if parent.section_name:
        text += f" port {parent.section_name}"
    if parent.port is not None:
        text += f" port {parent.port}"
    return text


def _resolved(rules: _Rules) -> Condition:
    if not rules.unresolved:
        return _condition("ResolvedRefs", "ResolvedRefs", "All backends exist.")
    text = "; ".join(f"{field}: {target.target.reason}" for field, target in rules.unresolved)
    return _condition("ResolvedRefs", rules.unresolved[0][1].reason, text, status=False)


def _dropped_text(rules: _Rules) -> str:
    """All dropped rules; the specification says how it begins."""
    text = "; ".join(f"{drop.rule}: {drop.text}" for drop in rules.dropped)
    return f"Dropped Rule {text}"


def _condition(name: str, reason: str, message: str, *, status: bool = True) -> Condition:
    return Condition(name, status, reason, clipped(message, MAX_MESSAGE))


def _remarks(route: GRPCRoute) -> Iterator[str]:
    """Hints at references that look like ours and are not."""
    for index, parent in enumerate(route.spec.parent_refs or ()):
        if parent.kind == "Service" and parent.group in (None, "core", "v1", GROUP):
            group = GROUP if parent.group is None else parent.group
            yield f'parentRefs[{index}] is of the group {group}, and is ignored; set group: ""'


def _problems(key: Key, texts: tuple[str, ...] | list[str]) -> tuple[Problem, ...]:
    return tuple(Problem(GRPC_ROUTE.name, key, clipped(text, MAX_MESSAGE)) for text in texts)


def _ref(parent: ParentReference) -> dict[str, str | int]:
    """A parentRef with the fields of the API that the spec sets."""
    fields: dict[str, str | int | None] = {
        "group": parent.group,
        "kind": parent.kind,
        "namespace": parent.namespace,
        "name": parent.name,
        "sectionName": parent.section_name,
        "port": parent.port,
    }
    return {name: value for name, value in fields.items() if value is not None}
