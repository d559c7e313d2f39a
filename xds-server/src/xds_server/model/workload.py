"""What runs a client: a Deployment or the like, of which all pods are alike. Pure."""

import re
from typing import NamedTuple

# Kubernetes makes the ends of names of these characters:
# https://github.com/kubernetes/apimachinery/blob/master/pkg/util/rand/rand.go
_RANDOM = "[bcdfghjklmnpqrstvwxz2456789]"
_SUFFIX = re.compile(rf"-(?:{_RANDOM}{{1,10}}-{_RANDOM}{{5}}|{_RANDOM}{{5}}|[0-9]{{1,5}})\Z")


class Workload(NamedTuple):
    """A group of clients that are alike.

    Attributes:
        namespace: Of the clients.
        name: Of the Deployment, StatefulSet, DaemonSet or Job, as far as the name of the pod tells.
    """

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.name}.{self.namespace}"


def of_client(node_id: str, namespace: str) -> Workload:
    """Returns the workload of a client.

    Args:
        node_id: By convention the name of its pod, a dot, and the namespace. Any other id is a workload of its own.
        namespace: Of the client.
    """
    pod = node_id.removesuffix(f".{namespace}")
    match = _SUFFIX.search(pod)
    return Workload(namespace, (pod[: match.start()] if match else pod) or pod or "unknown")
