"""The Kubernetes objects that describe the demo to xds-server, as text of files. Pure.

They are what a cluster would hold: a v1 Service, and discovery.k8s.io/v1 EndpointSlices with its name in a label. Each
replica has an EndpointSlice of its own, because a port belongs to a slice, and replicas on one machine differ by port.
https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from servicekit.addresses import Address

NAMESPACE = "default"
_SERVICE_LABEL = "kubernetes.io/service-name"


@dataclass(frozen=True, slots=True)
class Service:
    """A service of the demo and the port that its clients ask for."""

    name: str
    port: int


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One replica, as the EndpointSlice controller sees a pod."""

    name: str
    address: Address
    zone: str
    ready: bool = False
    serving: bool = False
    terminating: bool = False


def files(services: Mapping[Service, Sequence[Endpoint]]) -> dict[str, str]:
    """Describes all services; returns the YAML to write, by file name."""
    result = {}
    for service, endpoints in services.items():
        result[f"{service.name}.yaml"] = _yaml(_service(service))
        if not endpoints:
            result[f"{service.name}-empty.yaml"] = _yaml(_placeholder(service))
        for endpoint in endpoints:
            result[f"{endpoint.name}.yaml"] = _yaml(_slice(service, endpoint))
    return result


def states(texts: Iterable[str], service: str) -> dict[str, str]:
    """Reads the states of a service's replicas back from such files: ready, starting or draining."""
    documents = (yaml.safe_load(text) for text in texts)
    return {
        endpoint["targetRef"]["name"]: _state(endpoint["conditions"])
        for document in documents
        if document["metadata"]["labels"].get(_SERVICE_LABEL) == service
        for endpoint in document["endpoints"]
    }


def _state(conditions: Mapping[str, bool]) -> str:
    if conditions["terminating"]:
        return "draining"
    return "ready" if conditions["ready"] else "starting"


def _service(service: Service) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(service, service.name),
        "spec": {
            "selector": {"app.kubernetes.io/name": service.name},
            "ports": [{"name": "grpc", "port": service.port, "protocol": "TCP", "appProtocol": "grpc"}],
        },
    }


def _slice(service: Service, endpoint: Endpoint) -> dict[str, Any]:
    return _endpoint_slice(
        service,
        endpoint.name,
        endpoints=[
            {
                "addresses": [endpoint.address.host],
                "conditions": {
                    "ready": endpoint.ready,
                    "serving": endpoint.serving,
                    "terminating": endpoint.terminating,
                },
                "zone": endpoint.zone,
                "targetRef": {"kind": "Pod", "namespace": NAMESPACE, "name": endpoint.name},
            }
        ],
        ports=[{"name": "grpc", "port": endpoint.address.port, "protocol": "TCP", "appProtocol": "grpc"}],
    )


def _placeholder(service: Service) -> dict[str, Any]:
    """Makes the slice that the EndpointSlice controller keeps for a service without pods: empty, with ports null."""
    return _endpoint_slice(service, f"{service.name}-empty", endpoints=[], ports=None)


def _endpoint_slice(
    service: Service, name: str, *, endpoints: list[dict[str, Any]], ports: list[dict[str, Any]] | None
) -> dict[str, Any]:
    metadata = _metadata(service, name)
    metadata["labels"][_SERVICE_LABEL] = service.name
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata,
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": ports,
    }


def _metadata(service: Service, name: str) -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": service.name, "app.kubernetes.io/part-of": "proxyless-grpc-lb"}
    return {"name": name, "namespace": NAMESPACE, "labels": labels}


def _yaml(document: Mapping[str, Any]) -> str:
    return yaml.safe_dump(document, sort_keys=False)
