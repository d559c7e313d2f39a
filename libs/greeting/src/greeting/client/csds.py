"""The client's view of its xDS resources, which gRPC reports by CSDS (gRFC A40), and the log lines about its changes.

Pure: CSDS responses and times come in, messages go out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from envoy.admin.v3.config_dump_shared_pb2 import ClientResourceStatus
from envoy.config.core.v3.health_check_pb2 import HealthStatus
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment

from greeting.client.hints import NO_SUCH_SERVICE, NOT_DELIVERED
from greeting.client.message import Message
from servicekit.addresses import Address

PATIENCE = 2.0
"""Seconds that a resource may stay requested before that is logged; gRPC itself waits 15 (gRFC A57)."""

_TYPES = {
    "envoy.config.listener.v3.Listener": "LDS",
    "envoy.config.route.v3.RouteConfiguration": "RDS",
    "envoy.config.cluster.v3.Cluster": "CDS",
    "envoy.config.endpoint.v3.ClusterLoadAssignment": "EDS",
}
_ORDER = list(_TYPES.values())


@dataclass(frozen=True)
class Resource:
    """The state of one resource in gRPC."""

    type: str
    name: str
    version: str
    status: str
    error: str = ""
    rejected_version: str = ""
    endpoints: tuple[str, ...] = ()


Key = tuple[int, str, str]
"""Sorts resources in the order in which a client subscribes to them."""


class History:
    """The resources at the last update, and since when gRPC has waited for the missing ones."""

    def __init__(self) -> None:
        self._resources: Mapping[Key, Resource] = {}
        self._waiting_since: dict[Key, float] = {}
        self._reported: set[Key] = set()

    def update(self, resources: Mapping[Key, Resource], now: float, *, connected: bool) -> list[Message]:
        """Returns what changed since the last update, and which resources are overdue.

        Without a connection to the xDS server (`connected`) nothing is overdue: the calls' errors tell why.
        """
        messages = changes(self._resources, resources)
        self._resources = resources
        waiting = [key for key, resource in resources.items() if resource.status == "REQUESTED"]
        self._waiting_since = {key: self._waiting_since.get(key, now) for key in waiting}
        self._reported.intersection_update(waiting)
        for key, since in self._waiting_since.items():
            if connected and key not in self._reported and now - since > PATIENCE:
                self._reported.add(key)
                messages.append(_overdue(resources[key]))
        return messages


def resources(response: Any, target: str) -> dict[Key, Resource]:
    """Returns the resources that a ClientStatusResponse lists for a target."""
    found = [
        _resource(config)
        for client in response.config
        if _scope_name(client.client_scope) == _scope_name(target)
        for config in client.generic_xds_configs
    ]
    return {_key(resource): resource for resource in sorted(found, key=_key)}


def changes(before: Mapping[Key, Resource], after: Mapping[Key, Resource]) -> list[Message]:
    """Returns a message for each resource that is new, different or gone."""
    return [
        *(_described(resource) for key, resource in after.items() if resource != before.get(key)),
        *(
            Message("xDS", {"type": gone.type, "status": "UNSUBSCRIBED", "name": gone.name})
            for key, gone in before.items()
            if key not in after
        ),
    ]


def _described(resource: Resource) -> Message:
    facts: dict[str, Any] = {"type": resource.type, "status": resource.status, "name": resource.name}
    if resource.version:
        facts["version"] = resource.version
    if resource.type == "EDS" and resource.version:
        facts["endpoints"] = list(resource.endpoints)
    if resource.error:
        facts["error"] = resource.error
    if resource.rejected_version:
        facts["rejected_version"] = resource.rejected_version
    if resource.status == "DOES_NOT_EXIST":
        facts["hint"] = NO_SUCH_SERVICE if resource.type == "LDS" else NOT_DELIVERED
    return Message("xDS", facts, warning=resource.status not in ("REQUESTED", "ACKED"))


def _overdue(resource: Resource) -> Message:
    facts = {"type": resource.type, "status": resource.status, "name": resource.name}
    if resource.type == "LDS":
        return Message("nobody serves this target", facts | {"hint": NO_SUCH_SERVICE}, warning=True)
    return Message("the xDS server does not send a resource", facts | {"hint": NOT_DELIVERED}, warning=True)


def _resource(config: Any) -> Resource:
    type_name = config.type_url.rpartition("/")[2]
    return Resource(
        type=_TYPES.get(type_name, type_name),
        name=config.name,
        version=config.version_info,
        status=_name(ClientResourceStatus, config.client_status),
        error=" ".join(config.error_state.details.split()),
        rejected_version=config.error_state.version_info,
        endpoints=_endpoints(config.xds_config),
    )


def _endpoints(packed: Any) -> tuple[str, ...]:
    assignment = ClusterLoadAssignment()
    if not packed.Unpack(assignment):
        return ()
    return tuple(
        sorted(
            f"{_address(endpoint.endpoint)} {_name(HealthStatus, endpoint.health_status)}{_place(group.locality)}"
            for group in assignment.endpoints
            for endpoint in group.lb_endpoints
        )
    )


def _address(endpoint: Any) -> str:
    addresses = [endpoint.address, *(additional.address for additional in endpoint.additional_addresses)]
    return "+".join(_host_port(each.socket_address) for each in addresses)


def _host_port(address: Any) -> str:
    return str(Address(address.address, address.port_value))


def _place(locality: Any) -> str:
    parts = [part for part in (locality.region, locality.zone, locality.sub_zone) if part]
    return " " + "/".join(parts) if parts else ""


def _key(resource: Resource) -> Key:
    order = _ORDER.index(resource.type) if resource.type in _ORDER else len(_ORDER)
    return order, resource.type, resource.name


def _scope_name(target: str) -> str:
    """Returns what a target and its CSDS scope have in common: gRPC shortens xds:///NAME to xds:/NAME."""
    scheme, _, rest = target.partition(":")
    return f"{scheme.lower()}:{unquote(rest).lstrip('/')}"


def _name(enum: Any, value: int) -> str:
    """Returns the name of an enum's value, or its number if a newer gRPC has more values."""
    return enum.Name(value) if value in enum.values() else str(value)
