"""The end of the demo on a real Kubernetes: `task undeploy`, and xds-server by itself. Runs after the other files."""

import json
import os
from pathlib import Path

import pytest

from tests.cluster import waiting
from tests.cluster.kube import PART_OF, ROOT, SERVICES, Cluster, Object

pytestmark = pytest.mark.timeout(300)


def test_undeploy_leaves_nothing(kind: Cluster) -> None:
    kind.task("undeploy")
    kinds = kind.kubectl("api-resources", "--verbs=list", "--output=name").split()
    listable = ",".join(name for name in kinds if not name.startswith("events"))
    left = kind.kubectl("get", listable, "--all-namespaces", "--selector", PART_OF, "--output=name")
    assert left.split() == []
    kind.task("undeploy")  # a second time: not an error


def test_xds_server_alone_serves_other_namespaces(kind: Cluster, tmp_path: Path) -> None:
    """The control plane is in one namespace; a service and its client, with a short target, are in another."""
    images = {service: (ROOT / ".build" / "images" / service).read_text().strip() for service in SERVICES}
    mesh: Object = {
        "namespace": "mesh",
        "resources": ["k8s/base/xds-server"],
    }
    shop: Object = {
        "namespace": "shop",
        "resources": ["k8s/base/hello-server", "k8s/base/hello-client"],
        "components": ["k8s/components/xds-client"],
    }
    for namespace in ("mesh", "shop"):
        kind.kubectl("create", "namespace", namespace)
        kind.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    try:
        for kustomization in (mesh, shop):
            text = rendered(kind, kustomization, images, tmp_path)
            text = text.replace("xds-server:18000", "xds-server.mesh:18000")
            text = text.replace("xds:///hello-server.default:50051", "xds:///hello-server")
            kind.kubectl("apply", "--filename", "-", namespace=kustomization["namespace"], text=text)
        kind.rolled_out("xds-server", namespace="mesh")
        kind.rolled_out("hello-server", namespace="shop")
        [pod] = kind.pods("hello-server", namespace="shop")
        waiting.until(
            "a reply in the namespace shop",
            lambda: kind.kubectl("logs", "deployment/hello-client", namespace="shop"),
            lambda log: f"Hello gRPC Proxyless LB from host {pod['metadata']['name']}" in log,
        )
    finally:
        kind.kubectl("delete", "namespaces", "mesh", "shop")
        kind.kubectl(
            "delete", "clusterroles,clusterrolebindings,customresourcedefinitions", "--selector", PART_OF
        )


def rendered(cluster: Cluster, kustomization: Object, images: dict[str, str], folder: Path) -> str:
    """Renders a kustomization outside the repository, with the built images."""
    paths = {key: kustomization.get(key, []) for key in ("resources", "components")}
    content = {
        **kustomization,
        **{key: [os.path.relpath(ROOT / path, folder) for path in value] for key, value in paths.items()},
        "images": [{"name": name, "newTag": image.partition(":")[2]} for name, image in images.items()],
    }
    # JSON, because PyYAML does not quote a tag such as 4e12, which kubectl reads as a number.
    (folder / "kustomization.yaml").write_text(json.dumps(content))
    return cluster.kubectl("kustomize", str(folder))
