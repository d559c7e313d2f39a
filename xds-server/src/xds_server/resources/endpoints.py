"""ClusterLoadAssignment: the endpoints, by locality.

Never makes what clients reject or silently drop (gRFC A27): an address twice, a locality twice, a gap in the
priorities, a locality without a weight, anything but IP literals.
"""

from functools import lru_cache
from itertools import groupby
from operator import attrgetter, itemgetter

from envoy.config.core.v3 import address_pb2, base_pb2, health_check_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.type.v3 import percent_pb2

from xds_server.model.service import Endpoint, PortName, SocketAddress
from xds_server.model.tables import ENDPOINTS, POLICIES
from xds_server.model.traffic import RingHash, Unavailable
from xds_server.resources.features import ring_hash, zones
from xds_server.resources.lookup import Lookup
from xds_server.resources.types import Resource, serialise

_addresses = itemgetter(Endpoint._fields.index("addresses"))


def build(port: PortName, lookup: Lookup) -> Resource | None:
    """Builds the ClusterLoadAssignment of one port. Without endpoints it is empty, so that clients fail fast."""
    endpoints = lookup.get(ENDPOINTS, port)
    if endpoints is None:
        return None
    name = str(port)
    # Endpoints are sorted, hence grouped by zone.
    in_zones = endpoints and endpoints[0].zone != endpoints[-1].zone
    policy = lookup.get(POLICIES, port) if in_zones else None
    zone_of = ring_hash.zone if policy and isinstance(policy.load_balancing, RingHash) else attrgetter("zone")
    localities = [
        _locality(zone, priority, list(found))
        for priority, alike in enumerate(zones.priorities(endpoints, lookup))
        for zone, found in groupby(alike, key=zone_of)
    ]
    return serialise(name, endpoint_pb2.ClusterLoadAssignment(cluster_name=name, endpoints=localities))


def build_unavailable(target: Unavailable, _: Lookup) -> Resource:
    """Builds the ClusterLoadAssignment of a backend that can't be reached.

    Without endpoints, requests fail at once. The category of the drop tells clients why, as far as they show it.
    """
    name = str(target)
    drop = endpoint_pb2.ClusterLoadAssignment.Policy.DropOverload(
        category=name,
        drop_percentage=percent_pb2.FractionalPercent(
            numerator=100, denominator=percent_pb2.FractionalPercent.HUNDRED
        ),
    )
    policy = endpoint_pb2.ClusterLoadAssignment.Policy(drop_overloads=[drop])
    return serialise(name, endpoint_pb2.ClusterLoadAssignment(cluster_name=name, policy=policy))


def _locality(
    zone: str, priority: int, endpoints: list[Endpoint]
) -> endpoint_components_pb2.LocalityLbEndpoints:
    """One zone. Its weight is the number of its endpoints, for clients that pick a locality first.

    A zone may have endpoints of several priorities. grpc-java keeps endpoints by locality, so that of two priorities with
    an equal one it would lose the first; the sub-zone tells them apart.
    """
    sub_zone = f"priority-{priority}" if priority else ""
    locality = endpoint_components_pb2.LocalityLbEndpoints(
        locality=base_pb2.Locality(zone=zone, sub_zone=sub_zone), priority=priority
    )
    locality.load_balancing_weight.value = len(endpoints)
    locality.MergeFromString(b"".join(map(_encoded, map(_addresses, endpoints))))
    return locality


@lru_cache(maxsize=65_536)
def _encoded(addresses: tuple[SocketAddress, ...]) -> bytes:
    """A locality that contains one endpoint alone: merging it into another appends the endpoint.

    So when one of a thousand endpoints changes, only that one is encoded.
    https://protobuf.dev/programming-guides/encoding/#last-one-wins
    """
    # Clients try the addresses of a dual-stack pod as those of one endpoint (gRFC A61).
    first, *others = map(_address, addresses)
    additional = [endpoint_components_pb2.Endpoint.AdditionalAddress(address=a) for a in others]
    backend = endpoint_components_pb2.LbEndpoint(
        endpoint=endpoint_components_pb2.Endpoint(address=first, additional_addresses=additional),
        health_status=health_check_pb2.HEALTHY,
    )
    encoded: bytes = endpoint_components_pb2.LocalityLbEndpoints(lb_endpoints=[backend]).SerializeToString()
    return encoded


def _address(address: SocketAddress) -> address_pb2.Address:
    return address_pb2.Address(
        socket_address=address_pb2.SocketAddress(address=address.ip, port_value=address.port)
    )
