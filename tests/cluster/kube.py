"""A Kubernetes cluster: kubectl, Task and objects, always with an explicit context."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from tests.cluster import waiting

Object: TypeAlias = dict[str, Any]

ROOT = Path(__file__).parents[2]
SERVERS = ("hello-server", "howdy-server")
CLIENTS = ("hello-client", "howdy-client")
SERVICES = ("xds-server", *SERVERS, *CLIENTS)
NAME = "app.kubernetes.io/name"
PART_OF = "app.kubernetes.io/part-of=proxyless-grpc-lb"


def run(*command: str, env: dict[str, str] | None = None, cwd: Path = ROOT, text: str | None = None) -> str:
    """Runs a command and returns its stdout; if it fails, the error contains its output."""
    done = subprocess.run(command, capture_output=True, check=False, cwd=cwd, env=env, input=text, text=True)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def program(name: str) -> str:
    """Returns the path of a program: on PATH, else in the folder of this Python."""
    return shutil.which(name) or str(Path(sys.executable).with_name(name))


@dataclass(frozen=True)
class Cluster:
    """A cluster, by its context."""

    context: str
    environment: dict[str, str] = field(repr=False)
    """The environment of every command, with KUBECONFIG."""

    @property
    def is_kind(self) -> bool:
        """Whether this is a kind cluster."""
        return self.context.startswith("kind-")

    @property
    def kind_name(self) -> str:
        """The name by which kind and Task know the cluster."""
        return self.context.removeprefix("kind-")

    def task(self, name: str, *variables: str, root: Path = ROOT) -> str:
        """Runs a task of the Taskfile on this cluster."""
        task = os.environ.get("TASK") or program("task")
        command = [
            task,
            "--taskfile",
            str(root / "Taskfile.yml"),
            name,
            f"CLUSTER={self.kind_name}",
            *variables,
        ]
        return run(*command, env=self.environment, cwd=root)

    def kubectl(self, *arguments: str, namespace: str = "default", text: str | None = None) -> str:
        """Runs kubectl on this cluster."""
        command = [program("kubectl"), "--context", self.context, "--namespace", namespace, *arguments]
        return run(*command, env=self.environment, text=text)

    def get(self, what: str, *selection: str, namespace: str = "default") -> list[Object]:
        """Returns the objects of a kind."""
        text = self.kubectl("get", what, *selection, "--output", "json", namespace=namespace)
        found: list[Object] = json.loads(text)["items"]
        return found

    def workers(self) -> list[str]:
        """Returns the names of the nodes that run pods."""
        nodes = self.get("nodes", "--selector", "!node-role.kubernetes.io/control-plane")
        return [node["metadata"]["name"] for node in nodes]

    def pods(self, service: str, namespace: str = "default") -> list[Object]:
        """Returns the pods of a service, including terminating ones."""
        return self.get("pods", "--selector", f"{NAME}={service}", namespace=namespace)

    def pod_names(self, service: str) -> set[str]:
        """Returns the names of the pods of a service."""
        return {pod["metadata"]["name"] for pod in self.pods(service)}

    def deployment(self, service: str, namespace: str = "default") -> Object:
        """Returns the Deployment of a service."""
        deployments = self.get("deployments", "--selector", f"{NAME}={service}", namespace=namespace)
        [found] = deployments
        return found

    def set_environment(self, service: str, *variables: str) -> None:
        """Changes the environment of a Deployment (`NAME=value`; `NAME-` removes it) and waits for the rollout."""
        self.kubectl("set", "env", f"deployment/{service}", *variables)
        self.rolled_out(service)

    def scale(self, service: str, replicas: int) -> None:
        """Scales a Deployment and waits until it has this number of pods, all ready."""
        self.kubectl("scale", f"--replicas={replicas}", f"deployments.apps/{service}")
        self.rolled_out(service)

    def restart(self, service: str) -> None:
        """Restarts a Deployment and waits for the rollout."""
        self.kubectl("rollout", "restart", f"deployment/{service}")
        self.rolled_out(service)

    def rolled_out(self, service: str, namespace: str = "default") -> None:
        """Waits until a rollout is complete and no old pod is left."""
        self.kubectl("rollout", "status", f"deployment/{service}", "--timeout=180s", namespace=namespace)
        wanted = self.deployment(service, namespace)["spec"]["replicas"]
        waiting.until(
            f"{service} to have {wanted} pods, none of them terminating",
            lambda: [pod["metadata"]["name"] for pod in self.pods(service, namespace)],
            lambda names: len(names) == wanted,
            seconds=90,
        )
