"""Which ports of which services lead to a server. Several services may select one pod. Pure."""

from collections.abc import Mapping

from xds_server.mesh.services import Server
from xds_server.model.service import PortName, ServiceName
from xds_server.model.tables import SERVERS, Entry

Ports = tuple[PortName, ...]


class ServerIndex:
    """Keeps the ports by server, so that a change of one service costs as much as it changes."""

    def __init__(self) -> None:
        self._ports: dict[Server, Ports] = {}

    def change(
        self, service: ServiceName, before: Mapping[Server, Ports], after: Mapping[Server, Ports]
    ) -> dict[Entry, Ports | None]:
        """Applies what a service's ports lead to now; returns the entries of SERVERS that changed."""
        if before == after:
            return {}
        changes: dict[Entry, Ports | None] = {}
        for server in before.keys() | after.keys():
            ports = after.get(server)
            if before.get(server) != ports:
                changes[Entry(SERVERS, server)] = self._put(server, service, ports)
        return changes

    def _put(self, server: Server, service: ServiceName, ports: Ports | None) -> Ports | None:
        """Sets the ports of one service that lead to a server; returns those of all services, None if there are none."""
        others = (port for port in self._ports.pop(server, ()) if port.service != service)
        found = tuple(sorted((*others, *(ports or ()))))
        if not found:
            return None
        self._ports[server] = found
        return found
