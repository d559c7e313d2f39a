"""Which builder makes the resource of a key."""

from collections.abc import Callable
from functools import partial

from xds_server.resources import cluster, endpoints, listener, names, route, server_listener
from xds_server.resources.lookup import Lookup
from xds_server.resources.types import Key, Resource, ResourceType

Builder = Callable[[Lookup], Resource | None]
"""Builds a resource from what a lookup finds; None if it does not exist at present."""


def builder(key: Key, *, cluster_domain: str, load_reports: bool) -> Builder | None:
    """The builder for a key, with the name parsed once; None if no resource can ever have that name.

    Args:
        key: What a client subscribes to.
        cluster_domain: The suffix of full service names, such as ``cluster.local``.
        load_reports: Whether clients are to report how many requests they send.
    """
    if key.type is ResourceType.LISTENER and (address := names.parse_server(key.name)):
        return partial(server_listener.build, key.name, address)
    if key.type is ResourceType.LISTENER:
        target = names.parse(key.name, cluster_domain=cluster_domain)
        return partial(listener.build, key.name, target) if target else None
    port = names.parse_canonical(key.name)
    if port and key.type is ResourceType.CLUSTER:
        return partial(cluster.build, port, load_reports=load_reports)
    if port:
        return partial(_BUILDERS[key.type], port)
    unavailable = names.parse_unavailable(key.name)
    build = _UNAVAILABLE.get(key.type)
    return partial(build, unavailable) if unavailable and build else None


_BUILDERS = {
    ResourceType.ROUTE: route.build,
    ResourceType.ENDPOINTS: endpoints.build,
}

_UNAVAILABLE = {
    ResourceType.CLUSTER: cluster.build_unavailable,
    ResourceType.ENDPOINTS: endpoints.build_unavailable,
}
