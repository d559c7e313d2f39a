"""A port of a Service, reached from the machine of the tests."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster import kube
from tests.cluster.kube import Cluster


@contextmanager
def forwarded(cluster: Cluster, service: str, port: int) -> Iterator[str]:
    """Yields an address of this machine that leads to one pod of a Service."""
    command = [kube.program("kubectl"), "--context", cluster.context, "--namespace", "default"]
    command += ["port-forward", f"service/{service}", f":{port}"]
    with subprocess.Popen(command, env=cluster.environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            found = re.search(r"127\.0\.0\.1:\d+", process.stdout.readline())
            assert found, f"kubectl port-forward ended with {process.wait()}"
            yield found[0]
        finally:
            process.terminate()
