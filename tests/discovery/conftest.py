"""A source fed by the stub, and a way to wait for what it finds."""

import asyncio
import contextlib

import pytest

from tests.discovery.found import Found
from tests.support.api_stub import ApiStub, endpoint_slice, service
from xds_server.kubernetes.limits import Limits
from xds_server.kubernetes.source import KubernetesSource
from xds_server.objects.kinds import KINDS

REQUIRED = tuple(kind for kind in KINDS if kind.required)
"""What the stub has. Kinds that are not required have tests of their own."""

SHORT = {
    "list_silence": 0.5,
    "watch_head": 0.5,
    "watch_grace": 0.3,
    "watch_healthy": 0.1,
    "first_backoff": 0.2,
    "last_backoff": 0.4,
}
"""The same rules, sooner: the seconds that a person would wait for are not what is tested."""


@pytest.fixture
def api():
    stub = ApiStub()
    stub.apply(service())
    stub.apply(endpoint_slice("10.0.0.1"))
    yield stub
    stub.fault = stub.list_fault = stub.watch_fault = None
    stub.stop()


@pytest.fixture
def discover(api, tmp_path, monkeypatch):
    """Runs a source on the stub: ``async with discover(...) as found``."""

    @contextlib.asynccontextmanager
    async def run(*, kinds=REQUIRED, namespaces=(), poll_interval=60, watch=True, **limits):
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "kubeconfig", token="secret")))
        found = Found(kinds, namespaces)
        found.source = KubernetesSource(
            found.store,
            found.collections,
            poll_interval=poll_interval,
            watch=watch,
            limits=Limits(**{**SHORT, **limits}),
        )
        found.task = asyncio.create_task(found.source.run())
        try:
            yield found
        finally:
            found.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await found.task

    return run
