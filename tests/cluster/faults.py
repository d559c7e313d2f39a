"""Faults of a cluster, caused on the nodes of kind, and undone when the context ends."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster import kube, waiting
from tests.cluster.kube import Cluster


@contextmanager
def api_server_frozen(cluster: Cluster) -> Iterator[None]:
    """Freezes all processes of the control plane's node: connections stay open, but nothing answers."""
    node = f"{cluster.kind_name}-control-plane"
    kube.run("docker", "pause", node)
    try:
        yield
    finally:
        kube.run("docker", "unpause", node)
        waiting.until("the API server to answer", lambda: _is_ready(cluster), bool)


@contextmanager
def cordoned(cluster: Cluster, node: str) -> Iterator[None]:
    """Makes a node unschedulable."""
    cluster.kubectl("cordon", node)
    try:
        yield
    finally:
        cluster.kubectl("uncordon", node)


@contextmanager
def cut_off(cluster: Cluster, node: str) -> Iterator[None]:
    """Disconnects a node from the network, without closing connections."""
    kube.run("docker", "network", "disconnect", "kind", node)
    try:
        yield
    finally:
        kube.run("docker", "network", "connect", "kind", node)


def _is_ready(cluster: Cluster) -> bool:
    try:
        return cluster.kubectl("get", "--raw", "/readyz") == "ok"
    except AssertionError:
        return False


@contextmanager
def api_server_refused(cluster: Cluster) -> Iterator[None]:
    """Refuses all connections of pods to the API server, and resets those that are open.

    The rule is in the FORWARD chain, which only packets of pods pass: kubelets and kubectl are not affected, so pods
    stay ready.
    """
    [api_server] = cluster.get("endpointslices", "--selector", "kubernetes.io/service-name=kubernetes")
    [endpoint], [port] = api_server["endpoints"], api_server["ports"]
    [address] = endpoint["addresses"]
    rule = ["--protocol", "tcp", "--destination", address, "--dport", str(port["port"])]
    reset = ["--jump", "REJECT", "--reject-with", "tcp-reset"]
    workers = cluster.workers()
    for worker in workers:
        kube.run("docker", "exec", worker, "iptables", "--insert", "FORWARD", *rule, *reset)
    try:
        yield
    finally:
        for worker in workers:
            kube.run("docker", "exec", worker, "iptables", "--delete", "FORWARD", *rule, *reset)
