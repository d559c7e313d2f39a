"""ClusterLoadAssignment: the endpoints, by locality.

What clients refuse, or drop without a word, is never made (gRFC A27): an address twice, a locality twice, a gap in
the priorities, a locality without a weight, anything but IP literals.
"""

from collections.abc import Iterable
from functools import lru_cache
from itertools import groupby
from operator import attrgetter

from envoy.config.core.v3 import address_pb2, base_pb2, health_check_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2

from xds_server.model import Endpoint, SocketAddress
from xds_server.resources.types import Resource, serialise


def build(name: str, endpoints: Iterable[Endpoint]) -> Resource:
    """A ClusterLoadAssignment; without endpoints it is empty, which tells clients at once that there are none.

    Args:
        name: Of the Cluster.
        endpoints: Sorted, hence by zone; no address stands twice.
    """
    localities = [_locality(zone, list(found)) for zone, found in groupby(endpoints, key=attrgetter("zone"))]
    return serialise(name, endpoint_pb2.ClusterLoadAssignment(cluster_name=name, endpoints=localities))


def _locality(zone: str, endpoints: list[Endpoint]) -> endpoint_components_pb2.LocalityLbEndpoints:
    """One zone; it weighs as much as it has endpoints, for clients that choose a locality first."""
    locality = endpoint_components_pb2.LocalityLbEndpoints(locality=base_pb2.Locality(zone=zone))
    locality.load_balancing_weight.value = len(endpoints)
    locality.MergeFromString(b"".join(map(_encoded, endpoints)))
    return locality


@lru_cache(maxsize=65_536)
def _encoded(endpoint: Endpoint) -> bytes:
    """A locality with nothing but one backend: to merge it is to append the backend.

    Where one of a thousand endpoints comes or goes, one is encoded.
    https://protobuf.dev/programming-guides/encoding/#last-one-wins
    """
    # The addresses of a dual-stack pod are tried as one (gRFC A61).
    first, *others = map(_address, endpoint.addresses)
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
