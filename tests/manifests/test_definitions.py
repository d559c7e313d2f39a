"""The definition of GRPCBackendPolicy, and how `task deploy` applies definitions."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.manifests import rendering
from tests.manifests.rendering import Object
from xds_server.mesh import policy_spec
from xds_server.objects.kinds import GRPC_BACKEND_POLICY


def definition() -> Object:
    [found] = rendering.of_kind("CustomResourceDefinition", "base/xds-server/crds").values()
    return found


def spec() -> Object:
    [version] = definition()["spec"]["versions"]
    found: Object = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return found


def fields(schema: Object, path: str = "") -> Iterator[tuple[str, Object]]:
    """Yields each field below a schema, with its path."""
    schema = schema.get("items", schema)
    for name, found in schema.get("properties", {}).items():
        yield f"{path}{name}", found
        yield from fields(found, f"{path}{name}.")


def test_it_defines_the_kind_that_is_read() -> None:
    found = definition()["spec"]
    assert found["names"]["kind"] == GRPC_BACKEND_POLICY.name
    assert found["names"]["plural"] == GRPC_BACKEND_POLICY.plural
    [version] = found["versions"]
    assert f"{found['group']}/{version['name']}" == GRPC_BACKEND_POLICY.api_version
    assert version["subresources"] == {"status": {}}


def test_it_is_a_direct_policy() -> None:
    labels = definition()["metadata"]["labels"]
    assert labels["gateway.networking.k8s.io/policy"] == "Direct"


def test_it_is_part_of_xds_server() -> None:
    assert (
        definition()
        == rendering.of_kind("CustomResourceDefinition", "base/xds-server")[
            "grpcbackendpolicies.proxyless-grpc-lb.dev"
        ]
    )


def test_every_field_is_described() -> None:
    assert [path for path, found in fields(spec()) if not found.get("description")] == []


def test_it_has_the_codes_that_are_accepted() -> None:
    found = dict(fields(spec()))
    assert found["retry.codes"]["items"]["enum"] == list(policy_spec.RETRY_CODES)
    assert found["fault.abort.code"]["enum"] == list(policy_spec.ABORT_CODES)


# ---- scripts/apply-definitions ----


Apply = Callable[..., tuple[str, list[str]]]


@pytest.fixture
def apply(tmp_path: Path) -> Apply:
    """Runs the script with a kubectl that notes its arguments, and fails where one of `failing` is among them."""
    kubectl, calls = tmp_path / "kubectl", tmp_path / "calls"

    def run(*failing: str) -> tuple[str, list[str]]:
        conditions = "".join(
            f'case "$*" in *"{text}"*) echo "error: no {text}" >&2; exit 1;; esac\n' for text in failing
        )
        kubectl.write_text(f'#!/bin/sh\necho "$*" >>{calls}\n{conditions}')
        kubectl.chmod(0o755)
        script = rendering.ROOT / "scripts" / "apply-definitions"
        done = subprocess.run(
            [script, kubectl, "kind-test", "some/folder"],
            check=True,
            capture_output=True,
            text=True,
            env={"PATH": os.environ["PATH"]},
        )
        return done.stderr, [
            line.removeprefix("--context kind-test ") for line in calls.read_text().splitlines()
        ]

    return run


def test_our_definition_is_applied_and_awaited_first(apply: Apply) -> None:
    _, calls = apply()
    assert calls[0] == "apply --kustomize k8s/base/xds-server/crds"
    assert calls[1].startswith("wait --for=condition=Established")
    assert calls[1].endswith("customresourcedefinition/grpcbackendpolicies.proxyless-grpc-lb.dev")


def test_a_gateway_api_that_exists_stays_as_it_is(apply: Apply) -> None:
    output, calls = apply()
    assert output == ""
    assert not [call for call in calls if "some/folder" in call]


def test_a_gateway_api_that_is_missing_is_applied_and_awaited(apply: Apply) -> None:
    output, calls = apply("get customresourcedefinition")
    assert output == ""
    assert calls[-2] == "apply --server-side --filename some/folder"
    assert calls[-1].endswith("customresourcedefinition/grpcroutes.gateway.networking.k8s.io")


def test_a_gateway_api_that_cannot_be_had_is_told_in_one_line(apply: Apply) -> None:
    output, _ = apply("get customresourcedefinition", "--server-side")
    [line] = output.splitlines()
    assert line.startswith(
        "apply-definitions: no GRPCRoutes: the Gateway API can't be applied from some/folder"
    )
    assert line.endswith("error: no --server-side")


def test_deploy_applies_definitions_before_objects() -> None:
    text = (rendering.ROOT / "Taskfile.yml").read_text()
    assert 0 < text.index("scripts/apply-definitions") < text.index("apply --kustomize .build/deploy")
