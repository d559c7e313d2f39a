"""Fixtures: the cluster that the tests use, the demo on it, and the logs of its clients."""

import time
from collections.abc import Generator, Iterator
from contextlib import suppress

import pytest

from tests.cluster import clients, kube, provided
from tests.cluster.clients import Watch
from tests.cluster.kube import Cluster

FIGURES = pytest.StashKey[list[str]]()
REPLICAS = {"xds-server": 1, "hello-server": 2, "howdy-server": 2}


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster: an existing one, or one that the demo's deployment will create."""
    with provided.cluster(tmp_path_factory.mktemp("kubeconfig")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def demo(cluster: Cluster, figures: list[str]) -> Cluster:
    """The cluster with the demo, as `task deploy` leaves it."""
    if cluster.is_kind:
        start = time.monotonic()
        cluster.task("deploy")
        figures.append(f"task deploy: {time.monotonic() - start:.0f} s")
    for service in kube.SERVICES:
        cluster.rolled_out(service)
    return cluster


@pytest.fixture(scope="session")
def kind(demo: Cluster) -> Cluster:
    """The cluster with the demo, if it is a kind cluster; else the test is skipped."""
    if not demo.is_kind:
        pytest.skip("needs a kind cluster: the test builds images or controls the nodes' containers")
    return demo


@pytest.fixture(scope="session")
def calling_fast(demo: Cluster) -> Iterator[None]:
    """Clients that call 20 times a second and log JSON."""
    for client in kube.CLIENTS:
        demo.set_environment(client, *clients.FAST)
    yield
    with suppress(AssertionError):  # the last test removes the demo
        for client in kube.CLIENTS:
            demo.set_environment(client, *clients.SLOW)


@pytest.fixture
def watch(demo: Cluster, calling_fast: None) -> Watch:
    """The clients' logs from now on, with the demo at its initial scale."""
    for service, replicas in REPLICAS.items():
        demo.scale(service, replicas)
    settling = Watch(demo)
    for client in kube.CLIENTS:
        settling.until_hosts(client, demo.pod_names(client.replace("client", "server")))
    return Watch(demo)


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> list[str]:
    """Lines to print at the end: measurements that are not asserted."""
    return pytestconfig.stash[FIGURES]


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash[FIGURES]:
        terminalreporter.section("figures")
        for figure in config.stash[FIGURES]:
            terminalreporter.write_line(figure)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    provided.explain(report, item)
    return report
