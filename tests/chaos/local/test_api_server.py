"""The API server misbehaves in every way it can: nothing shrinks, nobody notices, and it is left in peace."""

import json
import time
from collections.abc import Callable

import pytest

from tests.chaos.mesh import Mesh, age, metric
from tests.support.api_stub import PLURALS, ApiStub
from tests.support.waiting import wait_until
from tests.support.xds_server import XdsServer
from xds_server.kubernetes.limits import Limits
from xds_server.objects.kinds import KINDS

POLL_INTERVAL = 60
"""Seconds, the default."""
MOST = 2.0
"""Requests a second for each watched resource."""
SOON = Limits().list_silence + Limits().last_backoff + 10
"""Seconds until all is well again: a request that hangs, the pause after it, and time to spare."""
RECOVERED = "the API server back → each client has a reply from the pod that was added during the outage"


def refusing(api: ApiStub) -> None:
    api.stop()


def failing(fault: str | int) -> Callable[[ApiStub], None]:
    """Make the fault of every request, those that are answered now included."""

    def begin(api: ApiStub) -> None:
        api.fault = fault
        api.end_watches()

    return begin


def watches(fault: str) -> Callable[[ApiStub], None]:
    """Make the fault of watches alone."""

    def begin(api: ApiStub) -> None:
        api.watch_fault = fault
        api.end_watches()

    return begin


def heal(api: ApiStub) -> None:
    if api.fault is None and api.watch_fault is None:
        api.start()
    api.fault = api.watch_fault = None


OUTAGES = [
    pytest.param("refuses connections", refusing, 75, id="refusing"),
    pytest.param("refuses connections", refusing, 10, id="refusing shortly", marks=pytest.mark.short),
    pytest.param("hangs", failing("hang"), 35, id="hanging"),
    pytest.param("hangs up on every request", failing("close"), 10, id="closing"),
    *[
        pytest.param(f"answers {status}", failing(status), 10, id=str(status))
        for status in (500, 503, 401, 403, 410)
    ],
]


@pytest.mark.parametrize(("does", "begin", "seconds"), OUTAGES)
def test_an_outage(mesh: Mesh, scenario, does: str, begin: Callable[[ApiStub], None], seconds: int) -> None:
    mesh.hello.scale(3)
    server = mesh.start_xds_server()
    with (
        mesh.load(server.address) as load,
        scenario(f"the API server {does} for {seconds} s", load) as run,
    ):
        load.wait_for(mesh.hello.names)
        known = services(server)
        failed, began = metric(server, "discovery_failures_total"), time.monotonic()
        begin(mesh.api)
        run.now(f"the API server {does}")
        load.go_on_for(seconds)
        assert services(server) == known
        assert load.answered_since(began + seconds - 1) == mesh.hello.names, "nobody is left out"
        assert age(server) > seconds / 2
        assert server.get("/readyz")[0] == 200
        assert server.warnings("serving the last known state")
        if seconds > POLL_INTERVAL:
            assert server.warnings("Kubernetes API requests still fail", "'seconds': 6")
        # Refused connections can only be counted by the server, and it counts all collections together.
        failed = (metric(server, "discovery_failures_total") - failed) / len(KINDS)
        rate = max(asked(mesh.api, began), failed / (time.monotonic() - began))
        assert 0 < rate < MOST
        run.note(f"{rate:.1f} requests a second for each resource")

        mesh.hello.scale(4)
        run.now("the API server answers again")
        heal(mesh.api)
        healed = time.monotonic()
        recovered = load.wait_for(mesh.hello.names) - healed
        assert recovered < SOON
        run.recovered(recovered, RECOVERED)
        if seconds > POLL_INTERVAL:
            # The list that was due has been read; otherwise a poll or a bookmark confirms the state within a minute.
            wait_until("a state that is not old", lambda: age(server) < 10)


@pytest.mark.parametrize(
    ("does", "fault"), [("closes every watch", "end"), ("calls every watch expired (410)", "expired")]
)
def test_watches_that_end(mesh: Mesh, scenario, does: str, fault: str) -> None:
    mesh.hello.scale(3)
    server = mesh.start_xds_server()
    with mesh.load(server.address) as load, scenario(f"the API server {does}", load) as run:
        load.wait_for(mesh.hello.names)
        known = services(server)
        began = time.monotonic()
        watches(fault)(mesh.api)
        run.now(f"the API server {does}")
        load.go_on_for(20)
        assert services(server) == known
        assert load.answered_since(began + 19) == mesh.hello.names, "nobody is left out"
        run.note(f"{asked(mesh.api, began):.1f} requests a second for each resource")

        mesh.hello.scale(4)
        run.now("watches last again")
        heal(mesh.api)
        healed = time.monotonic()
        run.recovered(load.wait_for(mesh.hello.names) - healed, RECOVERED)


def services(server: XdsServer) -> object:
    """Tell what a server knows."""
    return json.loads(server.get("/debug/services")[1])["services"]


def asked(api: ApiStub, since: float) -> float:
    """Assert that the API server was asked seldom; return how often a second for the resource asked for most."""
    seconds = time.monotonic() - since
    counts = [
        sum(1 for at, path in api.requests if at >= since and f"/{plural}" in path)
        for plural in PLURALS.values()
    ]
    assert max(counts) < MOST * seconds
    return max(counts) / seconds
