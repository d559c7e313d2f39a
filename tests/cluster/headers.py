"""Calls with headers, from a pod of a client of the demo: the demo's clients send none."""

import json
from pathlib import Path

from tests.cluster.kube import Cluster

TARGET = "xds:///hello-server.default:50051"
PROGRAM = Path(__file__).with_name("call_with_headers.py")


def call(cluster: Cluster, times: int, **headers: str) -> list[str]:
    """Calls hello-server on a connection of its own; returns, for each call, the host that replied, or the error."""
    pairs = [f"{name}={value}" for name, value in headers.items()]
    command = ["exec", "deployment/hello-client", "--", "python", "-c", PROGRAM.read_text()]
    found: list[str] = json.loads(cluster.kubectl(*command, TARGET, str(times), *pairs))
    return found
