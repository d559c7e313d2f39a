"""Fixtures for tests of services that use ``xds:///``. pytest finds them when the package is installed.

They import the server only when a test asks for them.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from xds_server.testing import Mesh


@pytest.fixture(scope="session")
def xds_mesh_server() -> "Iterator[Mesh]":
    """The control plane of all tests of a run: gRPC reads its bootstrap once in a process."""
    from xds_server.testing import Mesh  # noqa: PLC0415 - takes a second, and most test runs don't need it

    with Mesh() as mesh:
        yield mesh


@pytest.fixture
def xds_mesh(xds_mesh_server: "Mesh", monkeypatch: pytest.MonkeyPatch) -> "Iterator[Mesh]":
    """A control plane that serves nothing yet; ``GRPC_XDS_BOOTSTRAP_CONFIG`` is set for this process and its children."""
    monkeypatch.delenv("GRPC_XDS_BOOTSTRAP", raising=False)
    monkeypatch.setenv("GRPC_XDS_BOOTSTRAP_CONFIG", xds_mesh_server.bootstrap())
    yield xds_mesh_server
    xds_mesh_server.clear()
