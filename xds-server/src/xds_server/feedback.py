"""Tells users where they work what becomes of their objects: in statuses, and in Events.

It decides what is said about which object. How that is written belongs to ``kubernetes``.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from xds_server.ads.stream import Rejected
from xds_server.cache.cache import Cache
from xds_server.kubernetes.events import EventWriter, ObjectRef
from xds_server.kubernetes.writer import StatusWriter
from xds_server.mesh.problems import Owner, Problem
from xds_server.mesh.statuses import Status
from xds_server.mesh.store import Store
from xds_server.model.service import PortName, ServiceName
from xds_server.objects.kinds import GRPC_BACKEND_POLICY, GRPC_ROUTE, KINDS, SERVICE, Kind
from xds_server.objects.meta import IdentifiedMetadata, Key, Tracked
from xds_server.resources import server_listener
from xds_server.resources.lookup import Lookup
from xds_server.resources.names import parse, parse_canonical, parse_server, resolve
from xds_server.resources.types import ResourceType

NOT_USABLE = "NotUsable"
REJECTED = "RejectedByClient"
MAX_SERVICES = 3
"""Services that get an Event for one response that a client rejected."""

MAX_NAMES = 20
"""Names in the message of a client that are looked at."""

MAX_CAUSES = 3
"""Routes, and policies, that get one besides."""

MAX_AGENT_LENGTH = 60

_CAUSES = {
    ResourceType.ROUTE: (GRPC_ROUTE, GRPC_BACKEND_POLICY),
    ResourceType.CLUSTER: (GRPC_BACKEND_POLICY,),
}
"""Of which kinds of objects a resource is made beside the Service."""
_KINDS = {kind.name: kind for kind in KINDS}


class Feedback:
    """Passes on what is found out about objects. Belongs to the event loop.

    Args:
        statuses: Writes statuses.
        events: Writes Events.
        cache: Says which services the names of clients mean.
        store: The objects.
        cluster_domain: The suffix of full service names.
    """

    def __init__(
        self,
        statuses: StatusWriter,
        events: EventWriter,
        cache: Cache,
        store: Store,
        *,
        cluster_domain: str,
    ) -> None:
        self._statuses = statuses
        self._events = events
        self._cache = cache
        self._store = store
        self._cluster_domain = cluster_domain

    def problem(self, owner: Owner, problem: Problem) -> None:
        """Makes an Event on the object that people look at."""
        of_owner = (problem.kind, *problem.key) == owner
        message = problem.reason if of_owner else f"{problem.kind} {problem.key[1]}: {problem.reason}"
        kind, namespace, name = owner
        self._events.report(self._reference(_KINDS[kind], (namespace, name)), NOT_USABLE, message)

    def status(self, kind: Kind, key: Key, item: Tracked | None, status: Status | None) -> None:
        """Has the status of an object written, unless it says so already."""
        if item is None or status is None:
            self._statuses.forget(kind, key)
        else:
            self._statuses.want(kind, item, status)

    def rejected(self, rejected: Rejected) -> None:
        """Makes Events on the Services whose resources a client rejected, and on what may have made it do so."""
        # It is any text, and is shown in other namespaces.
        agent = (
            re.sub(r"[^\w ./+-]", " ", rejected.user_agent, flags=re.ASCII)[:MAX_AGENT_LENGTH] or "unknown"
        )
        message = _printable(rejected.message)
        for service in self._services(rejected):
            for kind, key in ((SERVICE, (service.namespace, service.name)), *self._causes(rejected, service)):
                # What a client of another namespace says may quote what only its namespace may see.
                is_own = key[0] == rejected.client.namespace
                says = (
                    message
                    if is_own
                    else f"it is in {rejected.client.namespace}; the log of xds-server has its words"
                )
                resource = f"the {rejected.type.label} resource of Service {service}"
                text = f"a client ({agent}) rejected {resource}: {says}"
                self._events.report(self._reference(kind, key), REJECTED, text)

    def _causes(self, rejected: Rejected, service: ServiceName) -> Iterator[tuple[Kind, Key]]:
        """Yields the first routes and policies that a rejected resource of a Service was made of."""
        kinds = _CAUSES.get(rejected.type, ())
        if rejected.type is ResourceType.LISTENER and any(map(parse_server, rejected.names)):
            kinds = (GRPC_BACKEND_POLICY,)
        for kind in kinds:
            seen = (
                key
                for key in self._store.concerning(kind, service)
                if key[0] in (service.namespace, rejected.client.namespace)
            )
            for key in islice(seen, MAX_CAUSES):
                yield kind, key

    def _services(self, rejected: Rejected) -> Sequence[ServiceName]:
        """The services that a rejection is about, at most a few."""
        # A client rejects a whole response; its message tells which resources are at fault.
        is_only = len(rejected.names) == 1
        at_fault = (name for name in rejected.names if is_only or _mentions(rejected.message, name))
        found: dict[ServiceName, None] = {}
        for name in islice(at_fault, MAX_NAMES):
            for port in self._ports(name, rejected):
                found[port.service] = None
            if len(found) >= MAX_SERVICES:
                break
        return list(found)[:MAX_SERVICES]

    def _ports(self, name: str, rejected: Rejected) -> Iterable[PortName]:
        """The ports that a resource is about; several only for the Listener of a server."""
        if rejected.type is not ResourceType.LISTENER:
            port = parse_canonical(name)
            return [port] if port else ()
        lookup = Lookup(self._cache.tables, rejected.client)
        if address := parse_server(name):
            return server_listener.security(address, lookup)
        target = parse(name, cluster_domain=self._cluster_domain)
        port = target and resolve(target, lookup)
        return [port] if port else ()

    def _reference(self, kind: Kind, key: Key) -> ObjectRef:
        item = self._store.find(kind, key)
        metadata = item.metadata if item else None
        uid = metadata.uid if isinstance(metadata, IdentifiedMetadata) else ""
        return ObjectRef(kind.name, kind.api_version, *key, uid)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def _mentions(text: str, name: str) -> bool:
    """Whether a text has a name as a whole, not as a part of a longer one."""
    begin = text.find(name)
    while begin >= 0:
        before, after = text[begin - 1 : begin], text[begin + len(name) :][:1]
        if not (before.isalnum() or before in {"_", ".", "-"} or after.isalnum() or after in {"_", "-"}):
            return True
        begin = text.find(name, begin + 1)
    return False
