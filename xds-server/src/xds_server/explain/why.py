"""Explains, step by step, what a client gets for a name. Pure."""

import difflib
import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice

from xds_server.explain import words
from xds_server.explain.explanation import Explanation, Step
from xds_server.mesh.problems import Problem
from xds_server.mesh.statuses import Status
from xds_server.model.client import Client
from xds_server.model.service import Endpoint, PortName, Service, ServiceName, SocketAddress
from xds_server.model.tables import CONSUMED, ENDPOINTS, POLICIES, ROUTES, SERVICES
from xds_server.model.traffic import Backend, Policy, RouteScope, Rule, Unavailable, UnavailableReason
from xds_server.objects import meta
from xds_server.objects.kinds import Kind
from xds_server.resources import names, route, server_listener
from xds_server.resources.features import zones
from xds_server.resources.lookup import Lookup, Tables
from xds_server.resources.names import ARTICLE_SUFFIX, TargetName

SCHEME = "xds:///"
MAX_NEAREST = 5
MAX_COMPARED = 50
"""Names that a name is compared with closely: those that share most groups of three characters with it."""
MAX_RULES = 50
MAX_ADDRESSES = 20
"""Of one zone; more are only counted."""

Statuses = Iterable[tuple[Kind, meta.Key, Status]]


def explain(  # noqa: PLR0913 - each is one thing
    tables: Tables,
    client: Client,
    name: str,
    *,
    cluster_domain: str,
    statuses: Statuses = (),
    problems: Iterable[Problem] = (),
) -> Explanation:
    """Explains what a client gets for a name.

    Args:
        tables: The model as it is now.
        client: Who asks, in its zone (``Cache.locate``).
        name: A target, as a client writes it; ``xds:///`` may be missing.
        cluster_domain: Such as ``cluster.local``.
        statuses: What is to be said about routes and policies.
        problems: What can't be used of objects.
    """
    lookup = Lookup(tables, client)
    text = name.removeprefix(SCHEME)
    address = names.parse_server(text)
    if address is not None:
        steps = tuple(_server(address, lookup))
        return Explanation(name, _who(client), found=all(step.ok for step in steps), steps=steps)
    target = names.parse(text, cluster_domain=cluster_domain)
    if target is None:
        step = Step(
            "Name",
            f"{text!r} has none of the forms of a target.",
            ("SERVICE.NAMESPACE:PORT, for example hello-server.default:50051",),
            ok=False,
        )
        return Explanation(name, _who(client), found=False, steps=(step,), nearest=_nearest(text, tables))
    port = names.resolve(target, lookup)
    first = _resolved(target, port, lookup)
    if port is None:
        return Explanation(
            name, _who(client), found=False, steps=(first,), nearest=_nearest_service(target, client, tables)
        )
    rules = route.rules(port, lookup)
    backends = list(dict.fromkeys(backend.target for rule in rules for backend in rule.backends))
    ends = [_backend(target, lookup) for target in backends]
    conditions = list(_conditions(port.service, client, statuses, problems))
    steps = (first, _routes(port, rules, lookup), *ends, *_remarks(conditions))
    return Explanation(name, _who(client), found=any(step.ok for step in ends), steps=steps)


def _who(client: Client) -> str:
    known = (("zone", client.zone), ("node", client.node), ("pod", client.pod))
    place = "".join(f", {what} {value}" for what, value in known if value)
    return f"a client in namespace {client.namespace}{place}"


# ---- the name ----


def _resolved(target: TargetName, port: PortName | None, lookup: Lookup) -> Step:
    """How the name was read, and the port that it leads to."""
    namespace = target.namespace or lookup.client_namespace
    whose = "" if target.namespace else ", the client's namespace, as the name has none"
    details = [f"Service {target.service} in {namespace}{whose}"]
    service = _service(target, namespace, lookup)
    if service is None:
        return Step(
            "Name",
            f"There is no Service {target.service} in namespace {namespace}.",
            tuple(details),
            ok=False,
        )
    if service.name.name != target.service:
        details.append(f"no Service is called {target.service}, so {ARTICLE_SUFFIX} is left out")
    details.append(_port_rule(target, service, port))
    if port is None:
        wanted = f"no port {target.port}" if target.port else "several ports, none of which is named grpc"
        return Step("Name", f"Service {service.name} has {wanted}.", tuple(details), ok=False)
    return Step("Name", f"It is {port}.", tuple(details))


def _service(target: TargetName, namespace: str, lookup: Lookup) -> Service | None:
    """The Service that is meant, as ``names.resolve`` finds it."""
    found = lookup.get(SERVICES, ServiceName(namespace, target.service))
    if found is None and target.service.endswith(ARTICLE_SUFFIX):
        found = lookup.get(SERVICES, ServiceName(namespace, target.service.removesuffix(ARTICLE_SUFFIX)))
    return found


def _port_rule(target: TargetName, service: Service, port: PortName | None) -> str:
    """Why it is that port."""
    listed = ", ".join(f"{each.number}{f' ({each.name})' if each.name else ''}" for each in service.ports)
    if port is None:
        return f"its ports: {listed or 'none'}; name one of them"
    if target.port:
        return f"port {target.port}, by {'number' if target.port == str(port.number) else 'name'}"
    if len(service.ports) == 1:
        return f"port {port.number}: the only one"
    [chosen] = [each for each in service.ports if each.number == port.number][:1]
    return f"port {port.number} of {listed}: the first {'named grpc' if chosen.name == 'grpc' else 'that declares gRPC'}"


# ---- routes ----


def _routes(port: PortName, rules: Sequence[Rule], lookup: Lookup) -> Step:
    """Which rules the client sees, in order: the first that matches counts."""
    called = lookup.get(POLICIES, port) or Policy()
    details = tuple(_rule(rule, called) for rule in rules[:MAX_RULES])
    if len(rules) > MAX_RULES:
        details = (*details, f"... and {len(rules) - MAX_RULES} more rules")
    return Step("Routes", _whose_rules(port, len(rules), lookup), details)


def _whose_rules(port: PortName, number: int, lookup: Lookup) -> str:
    scope = RouteScope(port, lookup.client_namespace if lookup.get(CONSUMED, port) else "")
    if scope.namespace and lookup.get(ROUTES, scope) is not None:
        return f"{words.count(number, 'rule')} of GRPCRoutes in {scope.namespace}, the client's namespace."
    if lookup.get(ROUTES, RouteScope(port)) is not None:
        return f"{words.count(number, 'rule')} of GRPCRoutes in {port.service.namespace}, the Service's namespace."
    return "No GRPCRoute: every request goes to the Service itself."


def _rule(rule: Rule, called: Policy) -> str:
    total = sum(backend.weight for backend in rule.backends)
    targets = ", ".join(_share(backend, total) for backend in rule.backends)
    says = "; ".join(words.of_call(rule.policy.over(called.call)))
    return f"{words.of_match(rule.match)} -> {targets}{f' ({says})' if says else ''}"


def _share(backend: Backend, total: int) -> str:
    return (
        f"{backend.target}" if backend.weight == total else f"{backend.weight / total:.1%} {backend.target}"
    )


# ---- backends ----


def _backend(target: PortName | Unavailable, lookup: Lookup) -> Step:
    """What answers: how requests are spread over which endpoints."""
    title = f"Backend {target}"
    if isinstance(target, Unavailable):
        is_closed = target.reason is UnavailableReason.INVALID_POLICY
        return Step(
            title,
            words.CLOSED if is_closed else "Every request to it fails at once with UNAVAILABLE.",
            ok=False,
        )
    endpoints = lookup.get(ENDPOINTS, target)
    if not endpoints:
        return Step(title, "It has no ready endpoint: requests fail with UNAVAILABLE.", ok=False)
    policy = lookup.get(POLICIES, target) or Policy()
    how = "; ".join([*words.of_balancing(policy), *([words.of_tls(policy.tls)] if policy.tls else ())])
    ranked = zones.priorities(endpoints, lookup)
    text = f"{words.count(len(endpoints), 'endpoint')}; {how}."
    return Step(title, text, (*_ranked(ranked), *_who_may(policy)))


def _who_may(policy: Policy) -> Iterator[str]:
    return words.of_authorization(policy.authorization) if policy.authorization else iter(())


def _ranked(ranked: Sequence[Sequence[Endpoint]]) -> Iterator[str]:
    """Yields the endpoints by priority and zone."""
    for priority, alike in enumerate(ranked):
        order = f"priority {priority}, " if len(ranked) > 1 else ""
        for zone, found in groupby(alike, key=lambda endpoint: endpoint.zone):
            endpoints = list(found)
            shown = ", ".join(
                " + ".join(map(str, endpoint.addresses)) for endpoint in islice(endpoints, MAX_ADDRESSES)
            )
            more = f" and {len(endpoints) - MAX_ADDRESSES} more" if len(endpoints) > MAX_ADDRESSES else ""
            yield f"{order}{f'zone {zone}' if zone else 'no zone'}: {shown}{more}"


# ---- servers ----


def _server(address: SocketAddress, lookup: Lookup) -> Iterator[Step]:
    """How a server is to serve that uses xDS."""
    resource = server_listener.build("", address, lookup)
    remark = f"{lookup.remark[:1].upper()}{lookup.remark[1:]}."
    policies = server_listener.security(address, lookup)
    if not policies:
        nothing = "No security policy concerns it: it has neither TLS nor authorization."
        yield Step("Server", nothing if resource else remark, ok=resource is not None)
        return
    yield Step("Server", f"Clients reach it as {', '.join(map(str, policies))}.")
    is_open = not any(policy.is_closed for policy in policies.values())
    tls = words.of_tls(server_listener.strictest(list(policies.values())))
    yield Step(
        "Security", f"{tls}.", (*([remark] if lookup.remark else ()), *_who_may_reach(policies)), ok=is_open
    )


def _who_may_reach(policies: Mapping[PortName, Policy]) -> Iterator[str]:
    """Yields whom a server lets in, by the ports that lead to it: each has to allow a call."""
    for port, policy in policies.items():
        says = [words.CLOSED] if policy.is_closed else list(_who_may(policy))
        yield from (f"{port}: {line}" if len(policies) > 1 else line for line in says)
    if sum(policy.authorization is not None for policy in policies.values()) > 1:
        yield "each of these Services has to allow a call"


# ---- remarks ----


def _conditions(
    service: ServiceName, client: Client, statuses: Statuses, problems: Iterable[Problem]
) -> Iterator[str]:
    """Yields what conditions and problems say about the Service."""
    for kind, (namespace, name), status in statuses:
        for entry in status.entries:
            target = ServiceName(str(entry.ref.get("namespace", namespace)), str(entry.ref.get("name")))
            if target != service or namespace not in (service.namespace, client.namespace):
                continue
            for condition in entry.conditions:
                yield f"{kind.name} {namespace}/{name}: {condition.type}={condition.status}: {condition.message}"
    for problem in problems:
        if problem.key == (service.namespace, service.name):
            yield f"{problem.kind} {'/'.join(problem.key)}: {problem.reason}"


def _remarks(conditions: Sequence[str]) -> Iterator[Step]:
    if conditions:
        yield Step(
            "Objects", "What is said about the routes and policies of this Service:", tuple(conditions)
        )


# ---- nearest names ----


def _nearest_service(target: TargetName, client: Client, tables: Tables) -> tuple[str, ...]:
    """The names of ports that come nearest: those of the Service itself, if only the port is wrong."""
    namespace = target.namespace or client.namespace
    service = tables[SERVICES].get(ServiceName(namespace, target.service))
    if service is not None:
        return tuple(names.of_service(service))[:MAX_NEAREST]
    return _nearest(f"{target.service}.{namespace}", tables)


def _nearest(text: str, tables: Tables) -> tuple[str, ...]:
    """The names of the ports of the services whose names are most like a text."""
    services = {str(service.name): service for service in tables[SERVICES].values()}
    wanted = text.partition(":")[0]
    # The same Service in another namespace is nearest, however long the namespaces are.
    same = [name for name in services if name.partition(".")[0] == wanted.partition(".")[0]]
    groups = _groups(wanted)
    likely = heapq.nlargest(MAX_COMPARED, services, key=lambda name: len(groups & _groups(name)))
    alike = difflib.get_close_matches(wanted, likely, n=MAX_NEAREST, cutoff=0.6)
    found = [port for name in dict.fromkeys([*same, *alike]) for port in names.of_service(services[name])]
    return tuple(found[:MAX_NEAREST])


def _groups(text: str) -> set[str]:
    """The groups of three characters in a text."""
    return {text[place : place + 3] for place in range(max(1, len(text) - 2))}
