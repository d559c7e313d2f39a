"""Objects that tests apply: Services, routes and policies."""

import json

from tests.cluster.kube import NAME, Cluster, Object

LABELS = {"made-by": "tests"}
PORT = 50051


def apply(cluster: Cluster, *objects: Object) -> None:
    """Applies objects, with a label by which `delete_all` finds them."""
    for one in objects:
        one["metadata"].setdefault("labels", {}).update(LABELS)
    listed = {"apiVersion": "v1", "kind": "List", "items": objects}
    cluster.kubectl("apply", "--filename", "-", text=json.dumps(listed))


def delete_all(cluster: Cluster, kinds: str) -> None:
    """Deletes the objects of some kinds that `apply` has made."""
    [(label, value)] = LABELS.items()
    cluster.kubectl("delete", kinds, "--selector", f"{label}={value}")


def service(name: str, selects: str) -> Object:
    """Returns a Service in front of the pods of a service of the demo."""
    port = {"name": "grpc", "port": PORT, "targetPort": "grpc", "appProtocol": "grpc"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {NAME: selects}, "ports": [port]},
    }


def route(name: str, *rules: Object, parent: str) -> Object:
    """Returns a GRPCRoute of a Service."""
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GRPCRoute",
        "metadata": {"name": name},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": parent}], "rules": rules},
    }


def rule(*backends: tuple[str, int], match: Object | None = None) -> Object:
    """Returns a rule that sends requests to Services, by weight."""
    found: Object = {"backendRefs": [{"name": to, "port": PORT, "weight": weight} for to, weight in backends]}
    return found | ({"matches": [match]} if match else {})


def header(name: str, value: str) -> Object:
    """Returns a match of requests with a header."""
    return {"headers": [{"name": name, "value": value}]}


def policy(name: str, *, target: str, **spec: object) -> Object:
    """Returns a GRPCBackendPolicy of a Service."""
    return {
        "apiVersion": "proxyless-grpc-lb.dev/v1alpha1",
        "kind": "GRPCBackendPolicy",
        "metadata": {"name": name},
        "spec": {"targetRefs": [{"group": "", "kind": "Service", "name": target}], **spec},
    }
