"""Fixtures: the demo on a cluster, and load from pods in the cluster."""

from collections.abc import Callable, Generator, Iterator

import pytest

from tests.chaos.cluster.pods import CallerPods
from tests.chaos.load import Load
from tests.cluster import kube, provided
from tests.cluster.kube import Cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster, existing or to be created by the demo's deployment."""
    with provided.cluster(tmp_path_factory.mktemp("kubeconfig")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def demo(cluster: Cluster) -> Cluster:
    """The cluster with the demo, as `task deploy` leaves it."""
    cluster.task("deploy")
    for service in kube.SERVICES:
        cluster.rolled_out(service)
    return cluster


@pytest.fixture
def callers(demo: Cluster) -> Iterator[CallerPods]:
    """Pods that call."""
    callers = CallerPods(demo)
    try:
        yield callers
    finally:
        callers.delete()


@pytest.fixture
def load(callers: CallerPods) -> Callable[..., Load]:
    """Returns a function that makes load, on a given node if named."""
    return lambda node=None: Load(lambda: callers.follow(callers.start(node)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the state of the cluster to the report of a failure."""
    report = yield
    provided.explain(report, item)
    return report
