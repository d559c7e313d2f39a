"""The table of the kinds that are read, from the Kubernetes API and from files alike: a new kind is one row."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from xds_server.objects import gateway, policy
from xds_server.objects.core import Node, Service
from xds_server.objects.discovery import EndpointSlice
from xds_server.objects.gateway import GRPCRoute
from xds_server.objects.meta import Object
from xds_server.objects.policy import GRPCBackendPolicy


@dataclass(frozen=True, slots=True)
class Kind:
    """One row.

    Attributes:
        api_version: As in an object's ``apiVersion``.
        name: As in an object's ``kind``.
        plural: As in the paths of the API.
        type: The struct that decodes an object.
        required: Whether nothing may be served without it. A kind that is not required counts as empty while its
            definition does not exist (404) or may not be read (403).
        namespaced: Whether its objects are in namespaces.
        metadata_only: Whether the metadata of its objects is enough, so that the API need not send the rest.
    """

    api_version: str
    name: str
    plural: str
    type: type[Object]
    required: bool = True
    namespaced: bool = True
    metadata_only: bool = False

    @property
    def accept(self) -> tuple[str, str]:
        """The Accept headers of a list and of a watch.

        https://kubernetes.io/docs/reference/using-api/api-concepts/#metadata-only-fetches
        """
        if not self.metadata_only:
            return "application/json", "application/json"
        form = "application/json;as={};g=meta.k8s.io;v=v1,application/json"
        return form.format("PartialObjectMetadataList"), form.format("PartialObjectMetadata")

    def path(self, namespace: str) -> str:
        """The path of the collection in one namespace, or (empty) in all."""
        root = f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"
        return f"{root}/namespaces/{namespace}/{self.plural}" if namespace else f"{root}/{self.plural}"


SERVICE = Kind("v1", "Service", "services", Service)
ENDPOINT_SLICE = Kind("discovery.k8s.io/v1", "EndpointSlice", "endpointslices", EndpointSlice)
NODE = Kind("v1", "Node", "nodes", Node, required=False, namespaced=False, metadata_only=True)
GRPC_ROUTE = Kind(f"{gateway.GROUP}/v1", "GRPCRoute", "grpcroutes", GRPCRoute, required=False)
GRPC_BACKEND_POLICY = Kind(
    f"{policy.GROUP}/v1alpha1", "GRPCBackendPolicy", "grpcbackendpolicies", GRPCBackendPolicy, required=False
)

KINDS = (SERVICE, ENDPOINT_SLICE, NODE, GRPC_ROUTE, GRPC_BACKEND_POLICY)


class Collection(NamedTuple):
    """What one list covers: a kind, in one namespace or (empty) in all."""

    kind: Kind
    namespace: str = ""


def collections(kinds: Iterable[Kind], namespaces: Sequence[str] = ()) -> tuple[Collection, ...]:
    """The collections to read: each kind in each namespace, or in all if no namespace is named."""
    return tuple(
        Collection(kind, namespace)
        for kind in kinds
        for namespace in (dict.fromkeys(namespaces or [""]) if kind.namespaced else [""])
    )
