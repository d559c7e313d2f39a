"""The rendered objects of k8s/, and names that all tests here use. Contains no assertions about the objects."""

import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import yaml

Object: TypeAlias = dict[str, Any]

ROOT = Path(__file__).parents[2]
SERVERS = ("hello-server", "howdy-server")
CLIENTS = ("hello-client", "howdy-client")
SERVICES = ("xds-server", *SERVERS, *CLIENTS)

EXAMPLES = sorted(file.parent.name for file in ROOT.glob("k8s/examples/*/kustomization.yaml"))

# Uses of k8s/: each is a kustomization as a user would write it in another folder.
USES: dict[str, Object] = {
    **{f"base/{service}": {"resources": [f"k8s/base/{service}"]} for service in SERVICES},
    "base/xds-server/crds": {"resources": ["k8s/base/xds-server/crds"]},
    "overlays/kind": {"resources": ["k8s/overlays/kind"]},
    "overlays/ha": {"resources": ["k8s/overlays/ha"]},
    "overlays/secure": {"resources": ["k8s/overlays/secure"]},
    "overlays/secure with components/cert-manager": {
        "resources": ["k8s/overlays/secure"],
        "components": ["k8s/components/cert-manager"],
    },
    "install": {"resources": ["k8s/install"]},
    "install with components/tls": {"resources": ["k8s/install"], "components": ["k8s/components/tls"]},
    "overlays/kind with components/tls": {
        "resources": ["k8s/overlays/kind"],
        "components": ["k8s/components/tls"],
    },
    "components/injector": {"components": ["k8s/components/injector"]},
    "components/injector-v1beta1": {"components": ["k8s/components/injector-v1beta1"]},
    "components/injector with components/injector-tls": {
        "components": ["k8s/components/injector", "k8s/components/injector-tls"]
    },
    **{f"examples/{name}": {"resources": [f"k8s/examples/{name}"]} for name in EXAMPLES},
    "xds-server alone in the namespace mesh": {"namespace": "mesh", "resources": ["k8s/base/xds-server"]},
    "a client with the bootstrap": {
        "namespace": "shop",
        "resources": ["k8s/base/hello-client"],
        "components": ["k8s/components/xds-client"],
    },
}


@functools.cache
def rendered(use: str) -> tuple[Object, ...]:
    """Returns the objects of one of USES."""
    paths = {"resources", "components"}
    with tempfile.TemporaryDirectory() as folder:
        kustomization = {
            key: [os.path.relpath(ROOT / path, Path(folder).resolve()) for path in value]
            if key in paths
            else value
            for key, value in USES[use].items()
        }
        (Path(folder) / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        kubectl = Path(sys.executable).with_name("kubectl")
        output = subprocess.run(
            [kubectl, "kustomize", folder], check=True, capture_output=True, text=True
        ).stdout
    return tuple(yaml.safe_load_all(output))


def of_kind(kind: str, use: str = "overlays/kind") -> dict[str, Object]:
    """Returns the objects of a kind, by name."""
    return {found["metadata"]["name"]: found for found in rendered(use) if found["kind"] == kind}


def workloads() -> Iterator[tuple[str, Object]]:
    """Yields every Deployment of every use, with a test id."""
    for use in USES:
        for name, deployment in of_kind("Deployment", use).items():
            yield f"{name} of {use}", deployment


def container(deployment: Object) -> Object:
    """Returns the one container of a Deployment."""
    [only] = deployment["spec"]["template"]["spec"]["containers"]
    found: Object = only
    return found


def environment(deployment: Object) -> dict[str, str]:
    """Returns the environment variables of a Deployment that have a literal value."""
    return {
        entry["name"]: entry["value"] for entry in container(deployment).get("env", ()) if "value" in entry
    }
