"""The cluster that the tests run on: one made for them, or the one that CONTEXT names."""

import os
import uuid
from collections.abc import Iterator

import pytest

from tests.cluster import clients, kube
from tests.cluster.kube import Cluster

FIGURES = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash[FIGURES]:
        terminalreporter.section("figures")
        for figure in config.stash[FIGURES]:
            terminalreporter.write_line(figure)


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> list[str]:
    """Lines to print at the end: what was measured and is not asserted."""
    return pytestconfig.stash[FIGURES]
