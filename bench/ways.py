"""Four ways to call the replicas of a service, on a separate kind cluster that runs bench/cluster."""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import running
from bench.running import BUILD, ROOT
from tests.cluster import kube
from tests.cluster.kube import Cluster

IMAGE = "proxyless-bench:build"
ECHO = "echo"
"""The service that the benchmark calls."""
ROLES = {ECHO: "servers", "envoy": "proxy", "xds-server": "control plane"}
CLIENT = "client"


@dataclass(frozen=True)
class Way:
    """A way to call the replicas: its name and arguments of `echo call`."""

    name: str
    arguments: tuple[str, ...]


SERVICE = Way("Service address", ("--target=dns:///echo.default:50051",))
HEADLESS = Way("headless Service", ("--target=dns:///echo-headless.default:50051", "--round-robin"))
ENVOY = Way("Envoy", ("--target=dns:///envoy.default:50051",))
XDS = Way("xds:///", ("--target=xds:///echo.default:50051",))
WAYS = (SERVICE, HEADLESS, ENVOY, XDS)


def missing_tools() -> str:
    """Returns which tools are missing to create a cluster, or ""."""
    found = subprocess.run(
        [ROOT / "scripts/need", "docker", "kind", "kubectl"], capture_output=True, text=True, check=False
    )
    return found.stderr.strip() if found.returncode else ""


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """Creates a cluster with the replicas, the Services and proxy in front of them, and a pod to call from."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        name = f"proxyless-bench-{uuid.uuid4().hex[:6]}"
        created = Cluster(f"kind-{name}", os.environ | {"KUBECONFIG": str(folder / "kubeconfig")})
        xds_server = _build(folder / "image")
        try:
            running.say("creating a cluster")
            created.task("cluster:create")
            kube.run(
                "kind", "load", "docker-image", "--name", name, xds_server, IMAGE, env=created.environment
            )
            created.kubectl("apply", "--kustomize", str(_kustomization(xds_server)))
            for service in (*ROLES, "caller"):
                created.rolled_out(service)
            yield created
        finally:
            created.task("cluster:delete")


def call(cluster: Cluster, way: Way, *arguments: str) -> dict[str, Any]:
    """Runs `echo call` and returns its report."""
    found: dict[str, Any] = json.loads(
        cluster.kubectl("exec", "deployment/caller", "--", "/echo", "call", *way.arguments, *arguments)
    )
    return found


def pods(cluster: Cluster) -> list[tuple[str, str]]:
    """Returns role and name of each pod that takes part in the calls."""
    found = cluster.get("pods", "--selector", f"{kube.NAME} in ({','.join(ROLES)})")
    labelled = ((pod["metadata"]["labels"][kube.NAME], pod["metadata"]["name"]) for pod in found)
    return [(ROLES[service], name) for service, name in labelled]


def usage(cluster: Cluster, pods: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Returns the seconds of CPU that the pods of each role have used so far."""

    def read(pod: tuple[str, str]) -> float:
        return running.read_usage(cluster.kubectl("exec", pod[1], "--", "cat", "/proc/1/stat")).cpu

    total: dict[str, float] = defaultdict(float)
    with ThreadPoolExecutor(len(pods)) as pool:
        for (role, _), seconds in zip(pods, pool.map(read, pods), strict=True):
            total[role] += seconds
    return total


def _build(context: Path) -> str:
    """Builds the images and returns the name of xds-server's image."""
    running.say("building images")
    kube.run("scripts/build-image", "xds-server")
    context.mkdir()
    running.build_for_image(ECHO, context / "echo")
    shutil.copy(ROOT / "requirements/envoy.txt", context)
    base = [f"--build-arg=PYTHON_IMAGE={image}"] if (image := os.environ.get("PYTHON_IMAGE")) else []
    dockerfile = str(ROOT / "bench/cluster/Dockerfile")
    kube.run("docker", "build", *base, "--file", dockerfile, "--tag", IMAGE, str(context))
    return (ROOT / ".build/images/xds-server").read_text(encoding="utf-8").strip()


def _kustomization(xds_server: str) -> Path:
    """Writes a kustomization of bench/cluster with the tags of the images, as JSON, a subset of YAML."""
    folder = BUILD / "cluster"
    folder.mkdir(parents=True, exist_ok=True)
    images = [dict(zip(("name", "newTag"), image.split(":"), strict=True)) for image in (xds_server, IMAGE)]
    (folder / "kustomization.yaml").write_text(
        json.dumps(
            {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "resources": ["../../../bench/cluster"],
                "images": images,
            }
        ),
        encoding="utf-8",
    )
    return folder
