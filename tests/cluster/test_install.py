"""xds-server in a namespace of its own, as `k8s/install` has it, and clients that get their bootstrap by a label."""

import json
from collections.abc import Iterator

import pytest
import yaml

from tests.cluster import kube, waiting
from tests.cluster.kube import Cluster, Object

pytestmark = pytest.mark.timeout(600)

NAMESPACE = "xds-system"
TEAM = "team"
LABELLED = {"xds-client": "true"}
BOOTSTRAP = "GRPC_XDS_BOOTSTRAP_CONFIG"
VARIABLES = ["XDS_POD_NAME", "XDS_POD_NAMESPACE", "XDS_NODE_NAME", "XDS_POD_ZONE", BOOTSTRAP]


def injector(cluster: Cluster) -> str:
    """The folder for the version of MutatingAdmissionPolicy that the API server has."""
    served = json.loads(cluster.kubectl("get", "--raw", "/apis/admissionregistration.k8s.io/v1"))
    is_stable = "mutatingadmissionpolicies" in {found["name"] for found in served["resources"]}
    return "k8s/components/injector" + ("" if is_stable else "-v1beta1")


@pytest.fixture(scope="module")
def installed(kind: Cluster) -> Iterator[Cluster]:
    """The cluster with k8s/install, whose image is the one built here, the injector, and two empty namespaces."""
    folder = kube.ROOT / ".build/install"
    folder.mkdir(parents=True, exist_ok=True)
    tag = (kube.ROOT / ".build/images/xds-server").read_text().strip().partition(":")[2]
    image = {"name": "ghcr.io/proxyless-grpc-lb/xds-server", "newName": "xds-server", "newTag": tag}
    kustomization = {"resources": ["../../k8s/install"], "images": [image]}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    kind.kubectl("apply", "--kustomize", str(folder), namespace=NAMESPACE)
    kind.kubectl("apply", "--kustomize", injector(kind), namespace=NAMESPACE)
    for name, label in ((TEAM, "xds-client=true"), ("other", "xds-client-")):
        kind.kubectl("create", "namespace", name)
        kind.kubectl("label", "namespace", name, label)
    try:
        kind.rolled_out("xds-server", NAMESPACE)
        # The API server uses a new policy a moment after it accepted it.
        waiting.until(
            "the injector to work",
            lambda: environment(kind, pod("probe", labels=LABELLED)),
            lambda found: BOOTSTRAP in found,
            seconds=120,
        )
        yield kind
    finally:
        kind.kubectl("delete", "--kustomize", injector(kind), namespace=NAMESPACE)
        kind.kubectl("delete", "namespace", NAMESPACE, TEAM, "other", "--wait=true")
        # Not the definition of GRPCBackendPolicy, which the demo uses too.
        for what in ("clusterrole", "clusterrolebinding"):
            kind.kubectl("delete", what, "xds-system-xds-server")


def pod(name: str, *, labels: dict[str, str] | None = None, **spec: list[Object]) -> Object:
    """A pod that every pod security standard admits, with one container unless the spec says otherwise."""
    spec.setdefault("containers", [{"name": "a", "image": "none"}])
    confined = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    user = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    containers = {
        kind: [{**each, "securityContext": confined} for each in found] for kind, found in spec.items()
    }
    metadata = {"name": name, "labels": labels or {}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {**containers, "securityContext": user},
    }


def created(cluster: Cluster, wanted: Object, namespace: str) -> Object:
    """The pod as the API server would store it."""
    command = ["create", "--dry-run=server", "--output", "json", "--filename", "-"]
    found: Object = json.loads(cluster.kubectl(*command, namespace=namespace, text=json.dumps(wanted)))
    return found


def environment(cluster: Cluster, wanted: Object, namespace: str = "default") -> list[str]:
    """The names of the variables of a pod's first container."""
    found = created(cluster, wanted, namespace)["spec"]["containers"][0]
    return [variable["name"] for variable in found.get("env", ())]


@pytest.mark.parametrize(
    ("labels", "namespace", "variables"),
    [
        (LABELLED, "default", VARIABLES),
        ({}, "default", []),
        ({}, TEAM, VARIABLES),
        (LABELLED, TEAM, VARIABLES),
        ({"xds-client": "false"}, TEAM, []),
        (LABELLED, "other", VARIABLES),
        ({}, "other", []),
    ],
)
def test_a_label_of_the_pod_or_of_its_namespace_decides(
    installed: Cluster, labels: dict[str, str], namespace: str, variables: list[str]
) -> None:
    assert environment(installed, pod("any", labels=labels), namespace) == variables


def test_every_container_gets_it_before_its_own_variables_unless_it_has_one(installed: Cluster) -> None:
    own = [
        {"name": "MINE", "value": "1"},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]
    containers: list[Object] = [
        {"name": "a", "image": "none", "env": own},
        {"name": "b", "image": "none"},
        {"name": "c", "image": "none", "env": [{"name": "GRPC_XDS_BOOTSTRAP", "value": "/a/file"}]},
        {"name": "d", "image": "none", "env": [{"name": BOOTSTRAP, "value": "{}"}]},
    ]
    wanted = pod(
        "many", labels=LABELLED, containers=containers, initContainers=[{"name": "i", "image": "none"}]
    )
    spec = created(installed, wanted, "default")["spec"]
    found = {
        container["name"]: [variable["name"] for variable in container["env"]]
        for container in [*spec["containers"], *spec["initContainers"]]
    }
    assert found == {
        "a": [*VARIABLES, "MINE", "IP"],
        "b": VARIABLES,
        "c": ["GRPC_XDS_BOOTSTRAP"],
        "d": [BOOTSTRAP],
        "i": VARIABLES,
    }


def test_a_pod_is_created_without_a_bootstrap_if_there_is_none(installed: Cluster) -> None:
    installed.kubectl("delete", "configmap", "xds-client-bootstrap", namespace=NAMESPACE)
    try:
        waiting.until(
            "the injector to notice that its ConfigMap is gone",
            lambda: environment(installed, pod("any", labels=LABELLED)),
            lambda found: found == [],
            seconds=30,
        )
    finally:
        installed.kubectl("apply", "--kustomize", injector(installed), namespace=NAMESPACE)
    waiting.until(
        "the injector to notice that its ConfigMap is back",
        lambda: environment(installed, pod("any", labels=LABELLED)),
        lambda found: found == VARIABLES,
        seconds=30,
    )


def test_with_tls_pods_mount_the_certificate_of_their_service_account(installed: Cluster) -> None:
    folder = kube.ROOT / ".build/injector-tls"
    folder.mkdir(parents=True, exist_ok=True)
    components = [f"../../{injector(installed)}", "../../k8s/components/injector-tls"]
    (folder / "kustomization.yaml").write_text(yaml.safe_dump({"components": components}))
    containers: list[Object] = [
        {"name": "a", "image": "none"},
        {"name": "b", "image": "none", "env": [{"name": BOOTSTRAP, "value": "{}"}]},
    ]
    wanted = pod("any", labels=LABELLED, containers=containers)

    def mounts() -> dict[str, list[str]]:
        spec = created(installed, wanted, "default")["spec"]
        return {
            each["name"]: [mount["mountPath"] for mount in each["volumeMounts"] if mount["name"] == "xds-tls"]
            for each in spec["containers"]
        } | {"": [each["secret"]["secretName"] for each in spec["volumes"] if each["name"] == "xds-tls"]}

    installed.kubectl("apply", "--kustomize", str(folder), namespace=NAMESPACE)
    try:
        expected = {"a": ["/var/run/xds-tls"], "b": [], "": ["default-tls"]}
        waiting.until("the mounts", mounts, lambda found: found == expected, seconds=60)
    finally:
        installed.kubectl("apply", "--kustomize", injector(installed), namespace=NAMESPACE)
    waiting.until("no mounts", mounts, lambda found: not found[""], seconds=60)


def test_a_client_without_a_bootstrap_of_its_own_is_balanced(installed: Cluster) -> None:
    """The whole way of a newcomer: a label on the namespace, and `xds:///` in a Deployment."""
    base = kube.ROOT / "k8s/base/hello-client"
    image = (kube.ROOT / ".build/images/hello-client").read_text().strip()
    deployment = yaml.safe_load((base / "deployment.yaml").read_text())
    deployment["metadata"]["labels"] = {"app.kubernetes.io/name": "hello-client"}
    template = deployment["spec"]["template"]
    template["metadata"] = {"labels": {"app.kubernetes.io/name": "hello-client"}}
    container = template["spec"]["containers"][0]
    container["image"] = image
    container["env"] += [{"name": "INTERVAL", "value": "0.1"}]
    installed.kubectl("apply", "--filename", "-", namespace=TEAM, text=json.dumps(deployment))
    installed.rolled_out("hello-client", TEAM)
    wanted = installed.pod_names("hello-server")
    waiting.until(
        f"replies from {wanted}",
        lambda: installed.kubectl("logs", "deployment/hello-client", namespace=TEAM),
        lambda log: all(f"from host {name} " in log for name in wanted),
        seconds=60,
    )
    log = installed.kubectl("logs", "deployment/hello-client", namespace=TEAM)
    assert "xds_server=xds-server.xds-system:18000" in log
    assert f".{TEAM} source={BOOTSTRAP}" in log


def test_the_policies_of_pods_hold_in_its_namespace(installed: Cluster) -> None:
    [deployment] = installed.get("deployments", namespace=NAMESPACE)
    assert deployment["status"]["readyReplicas"] == 2
    [namespace] = installed.get("namespaces", "--field-selector", f"metadata.name={NAMESPACE}")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
