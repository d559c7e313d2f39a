"""The Kubernetes objects that the demo makes itself: its own Services and Deployments, and all EndpointSlices. Pure.

They are what a cluster would hold. Each replica has an EndpointSlice of its own, because a port belongs to a slice, and
replicas on one machine differ by port. https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from local_demo import certificates
from local_demo.objects import NAMESPACE, Object, Service
from servicekit.addresses import Address

_NAME_LABEL = "app.kubernetes.io/name"


@dataclass(frozen=True, slots=True)
class Greeter:
    """A server of the demo and the port that its clients ask for."""

    name: str
    port: int


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One replica, as the EndpointSlice controller sees a pod."""

    name: str
    address: Address
    zone: str
    labels: Mapping[str, str]
    ready: bool = False
    serving: bool = False
    terminating: bool = False


def greeter(server: Greeter, replicas: int) -> list[Object]:
    """Makes the Service and the Deployment of a server of the demo, as `k8s/base` has them."""
    name = {_NAME_LABEL: server.name}
    template = {
        "metadata": {"labels": _labels(server.name)},
        "spec": {"containers": [{"name": "app", "image": server.name}]},
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": _metadata(server.name, server.name),
            "spec": {
                "selector": name,
                "ports": [{"name": "grpc", "port": server.port, "protocol": "TCP", "appProtocol": "grpc"}],
            },
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": _metadata(server.name, server.name),
            "spec": {"replicas": replicas, "selector": {"matchLabels": name}, "template": template},
        },
    ]


def policy(server: Greeter, client: str) -> Object:
    """Makes the policy of a server in the secured demo, as `k8s/overlays/secure` has it: mutual TLS, for one client."""
    return {
        "apiVersion": "proxyless-grpc-lb.dev/v1alpha1",
        "kind": "GRPCBackendPolicy",
        "metadata": _metadata(server.name, server.name),
        "spec": {
            "targetRefs": [{"group": "", "kind": "Service", "name": server.name}],
            "tls": {"mode": "Mutual", "subjectAltNames": [certificates.spiffe_id(server.name)]},
            "authorization": {"allow": [{"principals": [certificates.spiffe_id(client)]}]},
        },
    }


def slices(services: Sequence[Service], endpoints: Sequence[Endpoint]) -> dict[str, str]:
    """Makes the EndpointSlices of all Services that select pods; returns the YAML to write, by file name."""
    result = {}
    for service in services:
        selected = [endpoint for endpoint in endpoints if service.selects(endpoint.labels)]
        if service.selector and not selected:
            result[f"{service.name}-empty.yaml"] = dump(_placeholder(service))
        for endpoint in selected:
            result[f"{service.name}.{endpoint.name}.yaml"] = dump(_slice(service, endpoint))
    return result


def dump(document: Object) -> str:
    """Writes an object as YAML."""
    return yaml.safe_dump(document, sort_keys=False)


def _slice(service: Service, endpoint: Endpoint) -> Object:
    found = {
        "addresses": [endpoint.address.host],
        "conditions": {
            "ready": endpoint.ready,
            "serving": endpoint.serving,
            "terminating": endpoint.terminating,
        },
        "zone": endpoint.zone,
        "targetRef": {"kind": "Pod", "namespace": NAMESPACE, "name": endpoint.name},
    }
    if service.prefers_near:
        # Kubernetes hints each endpoint for its own zone: KEP 4444. All replicas here run on one node.
        found["hints"] = {"forZones": [{"name": endpoint.zone}]}
    ports = [
        {
            "name": name,
            "port": endpoint.address.port,  # a greeter has but one
            "protocol": "TCP",
            **({"appProtocol": protocol} if protocol else {}),
        }
        for name, protocol in service.ports
    ]
    return _endpoint_slice(service, f"{service.name}.{endpoint.name}", endpoints=[found], ports=ports)


def _placeholder(service: Service) -> Object:
    """Makes the slice that the EndpointSlice controller keeps for a service without pods: empty, with ports null."""
    return _endpoint_slice(service, f"{service.name}-empty", endpoints=[], ports=None)


def _endpoint_slice(
    service: Service, name: str, *, endpoints: list[dict[str, Any]], ports: list[dict[str, Any]] | None
) -> Object:
    metadata = _metadata(service.name, name)
    metadata["labels"]["kubernetes.io/service-name"] = service.name
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata,
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": ports,
    }


def _metadata(service: str, name: str) -> dict[str, Any]:
    return {"name": name, "namespace": NAMESPACE, "labels": _labels(service)}


def _labels(service: str) -> dict[str, str]:
    return {_NAME_LABEL: service, "app.kubernetes.io/part-of": "proxyless-grpc-lb"}
