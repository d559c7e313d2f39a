"""The times at which pods become ready, from a watch."""

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from tests.cluster import kube
from tests.cluster.kube import NAME, Cluster

READY = '{.metadata.name} {.status.conditions[?(@.type=="Ready")].status}{"\\n"}'


def monotonic(moment: datetime) -> float:
    """Converts a recent time to the monotonic clock."""
    return moment.timestamp() - time.time() + time.monotonic()


@contextmanager
def watched(cluster: Cluster, service: str) -> Iterator[dict[str, datetime]]:
    """Watches the pods of a service, and yields a dictionary of the times at which each was first seen ready."""
    ready: dict[str, datetime] = {}
    command = [kube.program("kubectl"), "--context", cluster.context, "--namespace", "default", "get", "pods"]
    command += ["--selector", f"{NAME}={service}", "--watch", "--output", f"jsonpath={READY}"]
    with subprocess.Popen(command, env=cluster.environment, stdout=subprocess.PIPE, text=True) as process:

        def read() -> None:
            assert process.stdout
            for line in process.stdout:
                name, _, status = line.strip().partition(" ")
                if status == "True":
                    ready.setdefault(name, datetime.now(UTC))

        reader = threading.Thread(target=read)
        reader.start()
        try:
            yield ready
        finally:
            process.terminate()
            reader.join()
