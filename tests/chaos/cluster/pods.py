"""Callers in the cluster: pods with hello-client's image and bootstrap that run caller.py."""

import copy
import itertools
import json
import shlex

from greeting.client.program import CHANNEL_OPTIONS
from tests.chaos.load import CALLER, CALLS_A_SECOND, Caller
from tests.cluster import kube
from tests.cluster.kube import NAME, Cluster, Object

TARGET = "xds:///hello-server.default:50051"
SERVICE = "caller"
OPTIONS = [f"{name}={number}" for name, number in CHANNEL_OPTIONS]
"""The channel options of the demo's clients and of docs/your-services.md."""


class PodLog(Caller):
    """Reads the log of a caller's pod, from the beginning.

    Its times are comparable with those of the test: the nodes of a kind cluster share this machine's kernel.
    """

    def __init__(self, cluster: Cluster, pod: str) -> None:
        self._cluster, self._pod = cluster, pod
        kubectl = shlex.join(
            [kube.program("kubectl"), "--context", cluster.context, "--namespace", "default"]
        )
        wait = f"{kubectl} wait --for=condition=Ready --timeout=60s pod/{pod}"
        follow = f"{kubectl} logs --follow --tail=-1 {pod}"
        super().__init__("/bin/sh", "-c", f"{wait} && exec {follow}", env=cluster.environment)

    def _stop(self) -> None:
        self._cluster.kubectl("delete", "pod", self._pod)


class CallerPods:
    """The caller pods of one scenario."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._numbers = itertools.count(1)
        self._apply(
            {"kind": "ConfigMap", "metadata": _metadata(SERVICE), "data": {CALLER.name: CALLER.read_text()}}
        )
        self._template = _template(cluster.deployment("hello-client")["spec"]["template"])

    def start(self, node: str | None = None, calls_a_second: float = CALLS_A_SECOND) -> str:
        """Starts a pod that calls and returns its name."""
        pod = copy.deepcopy(self._template)
        name = f"{SERVICE}-{next(self._numbers)}"
        pod["metadata"] = _metadata(name)
        [container] = pod["spec"]["containers"]
        container["command"] = ["python", f"/chaos/{CALLER.name}", TARGET, str(calls_a_second), *OPTIONS]
        if node:
            pod["spec"]["nodeSelector"] = {"kubernetes.io/hostname": node}
        self._apply(pod)
        return name

    def follow(self, pod: str) -> PodLog:
        """Follows the log of a pod."""
        return PodLog(self._cluster, pod)

    def delete(self) -> None:
        self._cluster.kubectl("delete", "pods,configmaps", "--selector", f"{NAME}={SERVICE}")

    def _apply(self, thing: Object) -> None:
        self._cluster.kubectl("apply", "--filename", "-", text=json.dumps({"apiVersion": "v1", **thing}))


def _metadata(name: str) -> Object:
    return {"name": name, "labels": {NAME: SERVICE}}


def _template(hello_client: Object) -> Object:
    """Returns the pod template of hello-client, changed to run caller.py."""
    spec = copy.deepcopy(hello_client["spec"])
    [container] = spec["containers"]
    container["volumeMounts"] = [{"name": SERVICE, "mountPath": "/chaos"}]
    spec["volumes"] = [{"name": SERVICE, "configMap": {"name": SERVICE}}]
    spec["restartPolicy"] = "Never"
    return {"kind": "Pod", "spec": spec}
