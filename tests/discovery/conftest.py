"""A source fed by the stub, and a way to wait for what it finds."""

import asyncio
import contextlib

import pytest

from tests.discovery.found import Found
from tests.support.api_stub import ApiStub, endpoint_slice, service
from xds_server.discovery import backoff, reflector
from xds_server.discovery.kubernetes import KubernetesSource


@pytest.fixture
def api():
    stub = ApiStub()
    stub.apply(service())
    stub.apply(endpoint_slice("10.0.0.1"))
    yield stub
    stub.fault = stub.watch_fault = None
    stub.stop()


@pytest.fixture(autouse=True)
def short_deadlines(monkeypatch):
    """The same rules, sooner: the seconds that a person would wait for are not what is tested."""
    monkeypatch.setattr(backoff.Backoff, "FIRST", 0.2)
    monkeypatch.setattr(backoff.Backoff, "LAST", 0.4)
    monkeypatch.setattr(reflector, "WATCH_GRACE", 0.3)
    for name in ("LIST_TIMEOUT", "WATCH_TIMEOUT"):
        monkeypatch.setattr(f"xds_server.discovery.api.{name}", 0.5)
    monkeypatch.setattr(reflector, "HEALTHY_SECONDS", 0.1)


@pytest.fixture
def discover(api, tmp_path, monkeypatch):
    """Runs a source on the stub: ``async with discover(...) as found``."""

    @contextlib.asynccontextmanager
    async def run(*, namespaces=(), poll_interval=60, watch=True):
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "kubeconfig", token="secret")))
        found = Found(None)
        found.source = KubernetesSource(
            lambda changes: found.publications.append(dict(changes)),
            namespaces=namespaces,
            poll_interval=poll_interval,
            watch=watch,
        )
        task = asyncio.create_task(found.source.run())
        try:
            yield found
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    return run
