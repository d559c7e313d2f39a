"""Services and EndpointSlices to the tables of services and endpoints, keeping track of what a change touches."""

from collections.abc import Iterator, Mapping
from typing import Any

import structlog

from xds_server.mesh.problems import Problem
from xds_server.mesh.servers import ServerIndex
from xds_server.mesh.services import NOTHING, Assembled, assemble, owner
from xds_server.model.service import Service, ServiceName
from xds_server.model.tables import ENDPOINTS, SERVICES, Entry
from xds_server.objects import core, discovery, meta

log = structlog.get_logger()


class ServiceAssembler:
    """Keeps the objects of each service and what they make. Only services that are touched are assembled again."""

    def __init__(self) -> None:
        self._objects: dict[ServiceName, core.Service] = {}
        self._slices: dict[ServiceName, dict[meta.Key, discovery.EndpointSlice]] = {}
        self._assembled: dict[ServiceName, Assembled] = {}
        self._services: dict[ServiceName, Service] = {}
        self._servers = ServerIndex()
        self._secured: frozenset[str] = frozenset()
        self._touched: set[ServiceName] = set()
        self._restated: set[ServiceName] = set()

    @property
    def services(self) -> Mapping[ServiceName, Service]:
        """The services as they were at the last flush."""
        return self._services

    def put_service(self, key: meta.Key, service: core.Service | None) -> None:
        """Takes a Service that was added, modified or (None) removed."""
        name = ServiceName(*key)
        if service is None:
            self._objects.pop(name, None)
        else:
            self._objects[name] = service
        self._touched.add(name)

    def put_slice(
        self, before: discovery.EndpointSlice | None, after: discovery.EndpointSlice | None
    ) -> None:
        """Takes the change of an EndpointSlice, which may move from one service to another."""
        if before is not None and (name := owner(before)):
            del self._slices[name][meta.key(before)]
            if not self._slices[name]:
                del self._slices[name]
            self._touched.add(name)
        if after is not None and (name := owner(after)):
            self._slices.setdefault(name, {})[meta.key(after)] = after
            self._touched.add(name)

    def secure(self, namespaces: frozenset[str]) -> None:
        """Notes which namespaces have a security policy: only their servers have to be known."""
        changed = namespaces ^ self._secured
        self._secured = namespaces
        self._touched.update(name for name in self._objects if name.namespace in changed)

    def flush(self) -> dict[Entry, Any]:
        """Assembles what was touched; returns the table entries that really changed."""
        changes: dict[Entry, Any] = {}
        for name in self._touched:
            before = self._assembled.get(name, NOTHING)
            after = self._assemble(name, before)
            if after == NOTHING:
                self._assembled.pop(name, None)
            else:
                self._assembled[name] = after
            if before.service != after.service:
                changes[Entry(SERVICES, name)] = after.service
                if after.service is None:
                    del self._services[name]
                else:
                    self._services[name] = after.service
            changes |= self._servers.change(name, before.servers, after.servers)
            for port in before.endpoints.keys() | after.endpoints.keys():
                if before.endpoints.get(port) != after.endpoints.get(port):
                    changes[Entry(ENDPOINTS, port)] = after.endpoints.get(port)
        self._restated |= self._touched
        self._touched.clear()
        return changes

    def take_restated(self) -> set[ServiceName]:
        """The services that were assembled since the last call."""
        restated, self._restated = self._restated, set()
        return restated

    def problems_of(self, name: ServiceName) -> tuple[Problem, ...]:
        """What can't be used of one service's objects."""
        return self._assembled.get(name, NOTHING).problems

    def problems(self) -> Iterator[Problem]:
        """What can't be used of all objects."""
        return (problem for assembled in self._assembled.values() for problem in assembled.problems)

    def _assemble(self, name: ServiceName, before: Assembled) -> Assembled:
        """The service as its objects make it now; as it was if that fails, so that it harms no other service."""
        source = self._objects.get(name)
        if source is None:
            return NOTHING
        try:
            with_servers = name.namespace in self._secured
            return assemble(source, self._slices.get(name, {}).values(), with_servers=with_servers)
        except Exception as error:
            log.exception("service can't be assembled; it stays as it was", service=str(name))
            reason = f"it can't be assembled and stays as it was: {error!r}"
            return before._replace(problems=(Problem("Service", name, reason),))
