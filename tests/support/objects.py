"""Kubernetes objects, and files of them for xds-server."""

from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]


def service(
    name: str, *, namespace: str = "default", ports: list[Object] | None = None, **spec: Any
) -> Object:
    """Returns a Service, by default with one port named grpc."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"ports": ports or [{"name": "grpc", "port": 50051, "protocol": "TCP"}], **spec},
    }


def endpoint_slice(name: str, owner: str, *, namespace: str = "default", **fields: Any) -> Object:
    """Returns an EndpointSlice of a Service."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": owner}},
        "addressType": "IPv4",
        **fields,
    }


def endpoints(*addresses: str, port: int, port_name: str = "grpc") -> Object:
    """Returns the fields of an EndpointSlice with ready endpoints on one port."""
    return {
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}} for address in addresses],
        "ports": [{"name": port_name, "port": port, "protocol": "TCP"}],
    }


def write(path: Path, *found: Object) -> None:
    """Writes objects into one file, atomically."""
    write_text(path, yaml.safe_dump_all(found))


def write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.temporary")
    temporary.write_text(text)
    temporary.replace(path)
