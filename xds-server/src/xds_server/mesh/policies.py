"""The policies of ports and routes, from GRPCBackendPolicy objects; and the statuses of those objects. Pure.

A policy counts for its target if it is valid, the target exists, and no older policy has the same target. What
targets one port of a Service replaces what targets the whole Service, for that port (GEP-713, merge strategy None).
What targets a rule of a route goes over what targets the whole route, field by field; both go over the Service's.

Everything is indexed by target, so that a change of one policy costs the same however many there are.
"""

import bisect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import structlog

from xds_server.errors import RefusedError
from xds_server.mesh import policy_spec
from xds_server.mesh.policy_spec import ROUTE, SERVICE, TargetKind
from xds_server.mesh.problems import Problem
from xds_server.mesh.statuses import Condition, Status, StatusEntry
from xds_server.model import service
from xds_server.model.service import PortName, ServiceName
from xds_server.model.tables import ANY_NAMESPACE, POLICIES, SECURED, Entry
from xds_server.model.traffic import CLOSED, CallPolicy, Policy
from xds_server.objects import meta
from xds_server.objects.gateway import GRPCRoute
from xds_server.objects.kinds import GRPC_BACKEND_POLICY
from xds_server.objects.meta import Key
from xds_server.objects.policy import GRPCBackendPolicy, MalformedPolicy, TargetRef

log = structlog.get_logger()


class _Owner(NamedTuple):
    """An object that policies target."""

    kind: TargetKind
    key: Key


class _Claim(NamedTuple):
    """A policy that targets something; of two with one target, the smaller one wins (GEP-713)."""

    created: str
    key: Key


@dataclass(frozen=True, slots=True)
class _Reading:
    """What one object says.

    Attributes:
        source: The object.
        policy: None if it is refused; a closed one if it is refused and to secure a Service.
        refusal: Why.
    """

    source: GRPCBackendPolicy
    policy: Policy | None = None
    refusal: str = ""

    @property
    def targets(self) -> tuple[TargetRef, ...]:
        """What it targets, if anything is made of it; a closed policy closes Services alone."""
        if self.policy is None:
            return ()
        found = self.source.spec.target_refs or ()
        return tuple(filter(_is_service, found)) if self.policy.is_closed else found

    @property
    def claim(self) -> _Claim:
        """Its rank among the policies with one target."""
        return _Claim(self.source.metadata.creation_timestamp, meta.key(self.source))

    @property
    def effect(self) -> tuple[Policy | None, tuple[TargetRef, ...], _Claim]:
        """What it says, of what, and with which rank."""
        return self.policy, self.targets, self.claim

    @property
    def is_secure(self) -> bool:
        """Whether it is a security policy."""
        return self.policy is not None and self.policy.is_secure


class PolicyAssembler:
    """Keeps the policies by target, and what was made of them by service. It is not thread-safe.

    Args:
        services: The SERVICES table, which the caller changes.
        routes: All GRPCRoutes, which the caller changes.
        idle: Returns why a policy for a GRPCRoute, or for its rule of that name (empty: all rules), has no effect at
            present; empty if it has.
    """

    def __init__(
        self,
        services: Mapping[ServiceName, service.Service],
        routes: Mapping[Key, GRPCRoute],
        idle: Callable[[Key, str], str],
    ) -> None:
        self._services = services
        self._routes = routes
        self._idle = idle
        self._sources: dict[Key, GRPCBackendPolicy] = {}
        self._readings: dict[Key, _Reading] = {}
        self._claims: dict[_Owner, dict[str, list[_Claim]]] = {}
        self._assembled: dict[ServiceName, dict[PortName, Policy]] = {}
        self._failures: dict[Key, Problem] = {}
        self._problems: dict[Key, tuple[Problem, ...]] = {}
        self._secured: dict[str, set[Key]] = {}
        self._secured_before: set[str] = set()
        self._touched_policies: set[Key] = set()
        self._touched_services: set[ServiceName] = set()
        self._touched_routes: set[Key] = set()
        self._touched_statuses: set[Key] = set()
        self._restated: set[Key] = set()

    @property
    def objects(self) -> Mapping[Key, GRPCBackendPolicy]:
        """The policies."""
        return self._sources

    @property
    def secured(self) -> frozenset[str]:
        """The namespaces with a security policy."""
        return frozenset(self._secured)

    def put(self, key: Key, policy: GRPCBackendPolicy | None) -> None:
        """Adds or replaces a policy; None removes it."""
        if policy is None:
            self._sources.pop(key, None)
        else:
            self._sources[key] = policy
        self._touched_policies.add(key)

    def touch_service(self, name: ServiceName) -> None:
        """Notes that a Service appeared, went, or changed its ports."""
        if _Owner(SERVICE, name) in self._claims:
            self._touched_services.add(name)

    def touch_route(self, key: Key) -> None:
        """Notes that what becomes of a GRPCRoute changed. Its policies stay as they are, but not their statuses."""
        self._touched_statuses.update(self._claimants(_Owner(ROUTE, key)))

    def flush(self) -> dict[Entry, Any]:
        """Assembles what was touched, and returns the entries of POLICIES and SECURED that changed."""
        for key in self._touched_policies:
            self._read(key)
        self._touched_policies.clear()
        changes: dict[Entry, Any] = {}
        secured = {*self._secured, *([ANY_NAMESPACE] if self._secured else ())}
        for namespace in secured ^ self._secured_before:
            changes[Entry(SECURED, namespace)] = namespace in secured or None
        self._secured_before = secured
        for name in self._touched_services:
            self._touched_statuses.update(self._claimants(_Owner(SERVICE, name)))
            before, after = self._assembled.get(name, {}), self._of_service(name)
            for port in before.keys() | after.keys():
                if before.get(port) != after.get(port):
                    changes[Entry(POLICIES, port)] = after.get(port)
            if after:
                self._assembled[name] = after
            else:
                self._assembled.pop(name, None)
        self._touched_services.clear()
        return changes

    def judge(self) -> None:
        """Finds the problems of what was touched. Called after ``flush``, and once the routes are made again."""
        for key in self._touched_statuses:
            self._judge(key)
        self._restated |= self._touched_statuses
        self._touched_statuses.clear()

    def of_route(self, key: Key, rule: str) -> CallPolicy:
        """Returns what the policies that target a route say about its rule of that name (empty: it has none)."""
        owner = _Owner(ROUTE, key)
        whole = self._winner(owner, "")
        of_rule = self._winner(owner, rule) if rule else None
        found = whole.call if whole else CallPolicy()
        return of_rule.call.over(found) if of_rule else found

    def take_touched_routes(self) -> set[Key]:
        """Returns the routes for which ``of_route`` may have changed since the last call."""
        taken, self._touched_routes = self._touched_routes, set()
        return taken

    def problems_of(self, key: Key) -> tuple[Problem, ...]:
        """What can't be used of one policy, and why."""
        return self._problems.get(key, ())

    def problems(self) -> Iterator[Problem]:
        """What can't be used at present, and why."""
        for found in self._problems.values():
            yield from found

    def status(self, key: Key) -> Status | None:
        """Returns what the status of a policy has to say; None if there is no such policy."""
        reading = self._readings.get(key)
        if reading is None:
            return None
        entries = (
            StatusEntry(_reference(target), self._conditions(key, reading, target))
            for target in reading.source.spec.target_refs or ()
        )
        return Status(reading.source.metadata.generation, tuple(entries))

    def take_restated(self) -> set[Key]:
        """Returns the policies whose status may have changed since the last call."""
        taken, self._restated = self._restated, set()
        return taken

    def _read(self, key: Key) -> None:
        """Reads an object again. If that fails, it stays as it was, or is closed if it is to become a security policy."""
        source, before = self._sources.get(key), self._readings.get(key)
        self._touched_statuses.add(key)
        self._failures.pop(key, None)
        after = None
        if source is not None:
            try:
                after = _read(source, before)
            except Exception as error:
                after = _closed(source, f"it can't be read: {error!r}")
                if before is not None and (before.is_secure or not after.is_secure):
                    log.exception("policy can't be read; it stays as it was", policy="/".join(key))
                    reason = f"it can't be read and stays as it was: {error!r}"
                    self._failures[key] = Problem(GRPC_BACKEND_POLICY.name, key, reason)
                    return
                log.exception("policy can't be read", policy="/".join(key))
        if after is None:
            self._readings.pop(key, None)
        else:
            self._readings[key] = after
        self._note_security(key, is_secure=after is not None and after.is_secure)
        if before is None or after is None or before.effect != after.effect:
            self._move_claims(before, after)

    def _note_security(self, key: Key, *, is_secure: bool) -> None:
        """Keeps the policies about security by namespace."""
        found = self._secured.setdefault(key[0], set())
        if is_secure:
            found.add(key)
        else:
            found.discard(key)
        if not found:
            del self._secured[key[0]]

    def _move_claims(self, before: _Reading | None, after: _Reading | None) -> None:
        """Updates the index by target, and marks the targets before and after as touched."""
        if before is not None:
            for owner, section in _owners(before):
                sections = self._claims[owner]
                sections[section].remove(before.claim)
                if not sections[section]:
                    del sections[section]
                self._touch(owner)
                if not sections:
                    del self._claims[owner]
        if after is not None:
            for owner, section in _owners(after):
                bisect.insort(self._claims.setdefault(owner, {}).setdefault(section, []), after.claim)
                self._touch(owner)

    def _touch(self, owner: _Owner) -> None:
        if owner.kind == SERVICE:
            self._touched_services.add(ServiceName(*owner.key))
        else:
            self._touched_routes.add(owner.key)
            self._touched_statuses.update(self._claimants(owner))

    def _claimants(self, owner: _Owner) -> Iterator[Key]:
        """The policies that target an object or a part of it."""
        for claims in self._claims.get(owner, {}).values():
            for claim in claims:
                yield claim.key

    def _first(self, owner: _Owner, section: str) -> Key | None:
        """The policy that counts for a target."""
        claims = self._claims.get(owner, {}).get(section)
        return claims[0].key if claims else None

    def _winner(self, owner: _Owner, section: str) -> Policy | None:
        first = self._first(owner, section)
        return None if first is None else self._readings[first].policy

    def _of_service(self, name: ServiceName) -> dict[PortName, Policy]:
        """The policy of each port of a service that has one."""
        found = self._services.get(name)
        owner = _Owner(SERVICE, name)
        if found is None or owner not in self._claims:
            return {}
        whole = self._winner(owner, "")
        policies = (
            (port_name, (self._winner(owner, port.name) if port.name else None) or whole)
            for port_name, port in zip(found.port_names, found.ports, strict=True)
        )
        return {port_name: policy for port_name, policy in policies if policy is not None}

    def _accepted(self, key: Key, reading: _Reading, target: TargetRef) -> Condition:
        """The condition Accepted for one target, with the reasons of GEP-713."""
        if reading.refusal:
            return _refused("Invalid", reading.refusal)
        if missing := self._missing(key, target):
            return _refused("TargetNotFound", missing)
        first = self._first(_owner(key, target), target.section_name or "")
        if first is not None and first != key:
            message = f"GRPCBackendPolicy {first[1]} has the same target and is older; it is used instead"
            return _refused("Conflicted", message)
        return Condition("Accepted", status=True, reason="Accepted", message="The policy is used")

    def _conditions(self, key: Key, reading: _Reading, target: TargetRef) -> tuple[Condition, ...]:
        """What is said about one target.

        GEP-713: a policy that is attached to its target is Accepted, whether it takes effect or not. Programmed says
        whether it does; without effect it is False.
        """
        accepted = self._accepted(key, reading, target)
        if not accepted.status:
            return (accepted,)
        why = self._without_effect(key, target)
        if not why:
            return (accepted,)
        message = f"The policy has no effect at present: {why}"
        return (
            accepted._replace(message=message),
            Condition("Programmed", status=False, reason="TargetNotServed", message=message),
        )

    def _without_effect(self, key: Key, target: TargetRef) -> str:
        """Why a target that exists is not served; empty if it is."""
        owner = _owner(key, target)
        return self._idle(owner.key, target.section_name or "") if owner.kind == ROUTE else ""

    def _missing(self, key: Key, target: TargetRef) -> str:
        """Why a target does not exist; empty if it does."""
        namespace = key[0]
        if policy_spec.kind(target) == SERVICE:
            found = self._services.get(ServiceName(namespace, target.name))
            if found is None:
                return f"there is no Service {target.name} with a TCP port in the namespace {namespace}"
            if target.section_name is None or any(port.name == target.section_name for port in found.ports):
                return ""
            return f"Service {target.name} has no TCP port with the name {target.section_name}"
        route = self._routes.get((namespace, target.name))
        if route is None:
            return f"there is no GRPCRoute {target.name} in the namespace {namespace}"
        rules = route.spec.rules or ()
        if target.section_name is None or any(rule.name == target.section_name for rule in rules):
            return ""
        return f"GRPCRoute {target.name} has no rule with the name {target.section_name}"

    def _judge(self, key: Key) -> None:
        """Finds the problems of a policy."""
        found = tuple(self._find_problems(key))
        if found:
            self._problems[key] = found
        else:
            self._problems.pop(key, None)

    def _find_problems(self, key: Key) -> Iterator[Problem]:
        if key in self._failures:
            yield self._failures[key]
        reading = self._readings.get(key)
        if reading is None:
            return
        if reading.refusal:
            yield Problem(
                GRPC_BACKEND_POLICY.name, key, f"{reading.refusal}; {self._result_of_refusal(key, reading)}"
            )
            return
        for target in reading.targets:
            accepted, *others = self._conditions(key, reading, target)
            if not accepted.status:
                reason = f"{accepted.message}; the policy is not used for {target.kind} {target.name}"
                yield Problem(GRPC_BACKEND_POLICY.name, key, reason)
            for condition in others:
                yield Problem(GRPC_BACKEND_POLICY.name, key, condition.message)
            if accepted.status and (other := self._replaced_security(key, reading, target)):
                reason = (
                    f"{target.name} port {target.section_name} is not secured by GRPCBackendPolicy {other}"
                )
                yield Problem(
                    GRPC_BACKEND_POLICY.name, key, f"Service {reason}: this policy replaces it for the port"
                )

    def _replaced_security(self, key: Key, reading: _Reading, target: TargetRef) -> str:
        """The security policy of a whole Service that a policy without security replaces for a port; empty if none."""
        if reading.is_secure or not (target.section_name and _is_service(target)):
            return ""
        whole = self._first(_owner(key, target), "")
        return whole[1] if whole is not None and self._readings[whole].is_secure else ""

    def _result_of_refusal(self, key: Key, reading: _Reading) -> str:
        """What comes of it that a policy can't be used."""
        closed = dict.fromkeys(
            f"{target.name}{f' port {target.section_name}' if target.section_name else ''}"
            for target in reading.targets
            if self._first(_owner(key, target), target.section_name or "") == key
            and not self._missing(key, target)
        )
        return (
            f"as it is a security policy, this is closed: Service {', Service '.join(closed)}"
            if closed
            else "the policy is not used"
        )


def _read(source: GRPCBackendPolicy, before: _Reading | None) -> _Reading:
    """Reads an object. Only its status may have changed since it was last read."""
    if isinstance(source, MalformedPolicy):
        return _closed(source, source.reason)
    if before is not None and before.source.spec == source.spec:
        again = replace(before, source=source)
        if again.claim == before.claim:
            return again
    try:
        return _Reading(source, policy_spec.read(source.spec))
    except RefusedError as error:
        return _closed(source, str(error))


def _closed(source: GRPCBackendPolicy, refusal: str) -> _Reading:
    """What is made of a policy that can't be used: without it, a Service that it secures would be open to all."""
    is_malformed = isinstance(source, MalformedPolicy)
    is_secure = is_malformed or source.spec.tls is not None or source.spec.authorization is not None
    closes = is_secure and any(map(_is_service, source.spec.target_refs or ()))
    return _Reading(source, CLOSED if closes else None, refusal)


def _is_service(target: TargetRef) -> bool:
    return policy_spec.kind(target) == SERVICE


def _refused(reason: str, message: str) -> Condition:
    return Condition("Accepted", status=False, reason=reason, message=message)


def _owners(reading: _Reading) -> Iterator[tuple[_Owner, str]]:
    """The objects that a policy targets, and which part of each (empty: all of it)."""
    for target in reading.targets:
        yield _owner(meta.key(reading.source), target), target.section_name or ""


def _owner(key: Key, target: TargetRef) -> _Owner:
    """The object of a target, which is in the policy's namespace."""
    return _Owner(policy_spec.kind(target), (key[0], target.name))


def _reference(target: TargetRef) -> dict[str, str | int]:
    """A target as the spec has it."""
    reference: dict[str, str | int] = {"group": target.group, "kind": target.kind, "name": target.name}
    if target.section_name is not None:
        reference["sectionName"] = target.section_name
    return reference
