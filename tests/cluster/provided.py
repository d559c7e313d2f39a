"""The cluster of a test run: one that it creates, or the one that CONTEXT names."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.cluster.kube import NAME, Cluster

QUESTIONS = (
    ("get", "pods", "--all-namespaces", "--output", "wide"),
    ("get", "events", "--all-namespaces", "--field-selector", "type=Warning"),
    ("logs", "--selector", f"{NAME}=xds-server", "--tail", "50"),
)


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Yields a cluster: an existing one, or one that the demo's deployment will create; deletes that at the end."""
    context = os.environ.get("CONTEXT")
    if not context:
        made = Cluster(
            f"kind-proxyless-test-{uuid.uuid4().hex[:6]}",
            {**os.environ, "KUBECONFIG": str(folder / "config")},
        )
        try:
            yield made
        finally:
            made.task("cluster:delete")
    elif context.startswith("kind-") or os.environ.get("FOREIGN_CONTEXT") == "yes":
        yield Cluster(context, dict(os.environ))
    else:
        pytest.exit(
            f"CONTEXT={context} is not a kind cluster: these tests restart and remove the demo in its namespace "
            "default. To run them anyway, set FOREIGN_CONTEXT=yes as well.",
            returncode=2,
        )


def explain(report: pytest.TestReport, item: pytest.Item) -> None:
    """Adds the state of the cluster to the report of a failure."""
    cluster = getattr(item, "funcargs", {}).get("cluster")
    if report.failed and isinstance(cluster, Cluster):
        for question in QUESTIONS:
            with suppress(AssertionError):
                report.sections.append((f"kubectl {' '.join(question)}", cluster.kubectl(*question)))
