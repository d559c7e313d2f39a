"""`OVERLAY=secure task deploy` on a real Kubernetes: mutual TLS everywhere, and who is let in.

The namespace may enforce the pod security standard `restricted` (test_demo.py makes it so).
"""

import json
from collections.abc import Iterator

import pytest

from tests.cluster import clients, kube, waiting
from tests.cluster.clients import Watch
from tests.cluster.kube import CLIENTS, SERVERS, Cluster

pytestmark = pytest.mark.timeout(600)

RENEWED_SECONDS = 180.0
"""kubelet changes the files of a Secret within its sync period and the lifetime of its cache: some 90 s."""


@pytest.fixture(scope="module")
def secured(kind: Cluster, calling_fast: None) -> Iterator[Cluster]:
    """The cluster with the secured demo; the plain one comes back at the end."""
    deploy(kind, "OVERLAY=secure")
    yield kind
    kind.kubectl("delete", "grpcbackendpolicies", *SERVERS)
    deploy(kind)


def deploy(cluster: Cluster, *variables: str) -> None:
    """Deploys an overlay, with clients that call fast, as the other tests have them."""
    cluster.task("deploy", *variables)
    for client in CLIENTS:
        cluster.set_environment(client, *clients.FAST)
    for service in kube.SERVICES:
        cluster.rolled_out(service)


def xds_server_log(cluster: Cluster) -> list[dict[str, object]]:
    text = cluster.kubectl("logs", "deployment/xds-server", "--tail=-1")
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def test_requests_alternate_and_nothing_is_plaintext(secured: Cluster) -> None:
    watch = Watch(secured)
    for client in CLIENTS:
        pods = secured.pod_names(client.replace("client", "server"))
        watch.until_hosts(client, pods)
        assert clients.alternate(watch.log(client).replies[-12:], pods)
    watch.assert_no_call_failed()
    [listening] = [line for line in xds_server_log(secured) if line["event"] == "listening"]
    assert listening["listen"] is None
    ports = next(
        found["spec"]["ports"]
        for found in secured.get("services")
        if found["metadata"]["name"] == "xds-server"
    )
    assert {port["name"] for port in ports} == {"grpc-xds-tls", "http-admin"}


def test_policies_are_accepted(secured: Cluster) -> None:
    for policy in secured.get("grpcbackendpolicies"):
        [ancestor] = policy["status"]["ancestors"]
        assert [condition["reason"] for condition in ancestor["conditions"]] == ["Accepted"]


def test_new_pods_are_used(secured: Cluster) -> None:
    watch = Watch(secured)
    secured.scale("hello-server", 4)
    watch.until_hosts("hello-client", secured.pod_names("hello-server"))
    secured.restart("hello-server")
    watch.until_hosts("hello-client", secured.pod_names("hello-server"))
    secured.scale("hello-server", 2)
    watch.until_hosts("hello-client", secured.pod_names("hello-server"))
    watch.assert_no_call_failed()


def test_a_client_that_is_not_allowed_is_told_so(secured: Cluster) -> None:
    secured.kubectl("apply", "--kustomize", "k8s/examples/not-allowed")
    log = waiting.until(
        "a refused call",
        lambda: secured.kubectl("logs", "deployment/stranger", "--tail=-1") if running(secured) else "",
        lambda text: "call failed" in text,
    )
    assert "PERMISSION_DENIED" in log
    assert "spec.authorization" in log
    assert " reply " not in log
    secured.kubectl("delete", "--kustomize", "k8s/examples/not-allowed")


def running(cluster: Cluster) -> bool:
    """Whether the stranger's container has started."""
    return any(
        status["ready"]
        for pod in cluster.pods("stranger")
        for status in pod["status"].get("containerStatuses", [])
    )


def test_certificates_are_renewed_and_no_call_is_lost(secured: Cluster) -> None:
    watch = Watch(secured)
    secured.task("certificates")
    waiting.until(
        "xds-server to take its renewed certificate",
        lambda: [line for line in xds_server_log(secured) if line["event"] == "certificate renewed"],
        bool,
        seconds=RENEWED_SECONDS,
    )
    # New connections with the new certificates.
    secured.scale("hello-server", 3)
    watch.until_hosts("hello-client", secured.pod_names("hello-server"))
    watch.assert_no_call_failed()
    secured.scale("hello-server", 2)
