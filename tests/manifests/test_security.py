"""Every pod passes the Pod Security Standard `restricted` and has minimal permissions.

See https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted.
"""

import pytest

from tests.manifests import rendering
from tests.manifests.rendering import Object

VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}

every_workload = pytest.mark.parametrize(
    "deployment", [pytest.param(deployment, id=name) for name, deployment in rendering.workloads()]
)


@every_workload
def test_the_pod_shares_nothing_with_its_node(deployment: Object) -> None:
    pod = deployment["spec"]["template"]["spec"]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert all(set(volume) - {"name"} <= VOLUMES for volume in pod.get("volumes", ()))
    assert all("hostPort" not in port for port in rendering.container(deployment).get("ports", ()))


@every_workload
def test_nothing_runs_as_root(deployment: Object) -> None:
    context = deployment["spec"]["template"]["spec"]["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] == context["runAsGroup"] == 65532, "the same number as in the images"
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}


@every_workload
def test_a_container_has_no_capabilities_and_a_read_only_file_system(deployment: Object) -> None:
    assert rendering.container(deployment)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


@every_workload
def test_only_xds_server_mounts_a_token(deployment: Object) -> None:
    pod = deployment["spec"]["template"]["spec"]
    is_xds_server = deployment["metadata"]["name"] == "xds-server"
    assert pod["automountServiceAccountToken"] is is_xds_server
    # The greeters of the secured demo have accounts, whose names are in their certificates.
    assert (pod.get("serviceAccountName") == "xds-server") is is_xds_server


@every_workload
def test_service_links_are_disabled(deployment: Object) -> None:
    assert deployment["spec"]["template"]["spec"]["enableServiceLinks"] is False


@every_workload
def test_memory_is_limited_and_cpu_is_not(deployment: Object) -> None:
    resources = rendering.container(deployment)["resources"]
    assert resources["requests"].keys() == {"cpu", "memory"}
    assert resources["limits"].keys() == {"memory"}


def test_xds_server_may_only_read_what_it_serves_and_write_statuses_and_events() -> None:
    [role] = rendering.of_kind("ClusterRole").values()
    read, gateway, ours = ["get", "list", "watch"], "gateway.networking.k8s.io", "proxyless-grpc-lb.dev"
    assert role["rules"] == [
        {"apiGroups": [""], "resources": ["services"], "verbs": read},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read},
        {"apiGroups": [""], "resources": ["nodes"], "verbs": read},
        {"apiGroups": [gateway], "resources": ["grpcroutes"], "verbs": read},
        {"apiGroups": [ours], "resources": ["grpcbackendpolicies"], "verbs": read},
        {"apiGroups": [gateway], "resources": ["grpcroutes/status"], "verbs": ["patch", "update"]},
        {"apiGroups": [ours], "resources": ["grpcbackendpolicies/status"], "verbs": ["patch", "update"]},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["get", "create", "patch"]},
    ]
    assert not rendering.of_kind("Role")


@pytest.mark.parametrize(
    ("use", "namespace"),
    [("overlays/kind", "default"), ("xds-server alone in the namespace mesh", "mesh")],
)
def test_the_role_is_bound_to_the_account_in_the_kustomizations_namespace(use: str, namespace: str) -> None:
    [binding] = rendering.of_kind("ClusterRoleBinding", use).values()
    [account] = rendering.of_kind("ServiceAccount", use).values()
    [role] = rendering.of_kind("ClusterRole", use).values()
    deployment = rendering.of_kind("Deployment", use)["xds-server"]
    name = account["metadata"]["name"]
    assert account["metadata"]["namespace"] == deployment["metadata"]["namespace"] == namespace
    assert deployment["spec"]["template"]["spec"]["serviceAccountName"] == name
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": name, "namespace": namespace}]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
