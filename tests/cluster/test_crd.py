"""The definition of GRPCBackendPolicy on a real API server: what it accepts, rejects, explains and prints."""

import json
from collections.abc import Iterator

import pytest

from tests.cluster import kube
from tests.cluster.kube import Cluster
from tests.support import policies
from tests.support.policies import ACCEPTED, REFUSED, Object

pytestmark = pytest.mark.timeout(300)

NAMESPACE = "policies"
CRD = "customresourcedefinition/grpcbackendpolicies.proxyless-grpc-lb.dev"


@pytest.fixture(scope="module")
def api(cluster: Cluster) -> Iterator[Cluster]:
    """A cluster with the definition and a namespace for policies."""
    if cluster.is_kind:
        cluster.task("cluster:create")
    cluster.kubectl("apply", "--kustomize", str(kube.ROOT / "k8s" / "base" / "xds-server" / "crds"))
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", CRD)
    cluster.kubectl("create", "namespace", NAMESPACE)
    yield cluster
    cluster.kubectl("delete", "namespace", NAMESPACE)


def apply(cluster: Cluster, item: Object, *arguments: str) -> str:
    placed = {**item, "metadata": {**item["metadata"], "namespace": NAMESPACE}}
    return cluster.kubectl(
        "apply", *arguments, "--filename", "-", namespace=NAMESPACE, text=json.dumps(placed)
    )


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_is_accepted(api: Cluster, name: str) -> None:
    assert "created" in apply(api, ACCEPTED[name], "--dry-run=server")


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_rejected_with_the_field(api: Cluster, name: str) -> None:
    item, field = REFUSED[name]
    with pytest.raises(AssertionError, match=r"is invalid|denied") as rejected:
        apply(api, item, "--dry-run=server")
    assert field in str(rejected.value)


def fields(schema: Object, path: str) -> Iterator[tuple[str, Object]]:
    """Yields each field below a schema, with its path."""
    schema = schema.get("items", schema)
    for name, found in schema.get("properties", {}).items():
        yield f"{path}.{name}", found
        yield from fields(found, f"{path}.{name}")


def test_every_field_is_explained(api: Cluster) -> None:
    [version] = json.loads(api.kubectl("get", CRD, "--output", "json"))["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert [path for path, found in fields(spec, "spec") if not found.get("description")] == []
    explained = api.kubectl("explain", "grpcbackendpolicies.spec.timeout")
    assert "ends calls 1 to 2 seconds early" in " ".join(explained.split())
    explained = api.kubectl("explain", "grpcbackendpolicies")
    assert "Whose policy counts" in explained


def test_targets_acceptance_and_age_are_printed(api: Cluster) -> None:
    routed = {**policies.ROUTE, "sectionName": "canary"}
    apply(api, policies.policy("printed", policies.SERVICE, routed))
    refs = [policies.SERVICE, routed]
    ancestors = [
        {
            "ancestorRef": ref,
            "controllerName": "proxyless-grpc-lb.dev/xds-server",
            "conditions": [
                {
                    "type": "Accepted",
                    "status": status,
                    "reason": reason,
                    "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                    "observedGeneration": 1,
                }
            ],
        }
        for ref, status, reason in zip(refs, ("True", "False"), ("Accepted", "TargetNotFound"), strict=True)
    ]
    patch = json.dumps({"status": {"ancestors": ancestors}})
    api.kubectl(
        *("patch", "gbp", "printed", "--subresource=status", "--type=merge", "--patch", patch),
        namespace=NAMESPACE,
    )
    head, row = api.kubectl("get", "gbp", namespace=NAMESPACE).splitlines()
    assert head.split() == ["NAME", "TARGET", "ACCEPTED", "REFUSED", "AGE"]
    assert row.split()[:4] == ["printed", "web", "True", "TargetNotFound"]
    _, wide = api.kubectl("get", "gbp", "--output=wide", namespace=NAMESPACE).splitlines()
    assert json.loads(wide.split()[-1]) == refs
    assert "printed" in api.kubectl("get", "gateway-api", "--output=name", namespace=NAMESPACE)
    assert "grpcbackendpolicies" in api.kubectl(
        "get", "customresourcedefinitions", "--selector", "gateway.networking.k8s.io/policy=Direct"
    )
