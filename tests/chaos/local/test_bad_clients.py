"""Slow, stalled, reconnecting and malicious clients of xds-server do not affect other clients."""

import time

import pytest

from tests.chaos.bad_clients import KINDS, NOT_READING, never_reading, repeatedly
from tests.chaos.load import CLIENTS
from tests.chaos.mesh import Mesh, metric, streams
from tests.support.waiting import wait_until

SECONDS = 5
PROMPTLY = 10.0
"""Seconds: a server that waited for a stalled client would take twice as long, until that client's stream is closed."""
RECOVERED = "a new pod ready → each client answered by it, while the others misbehave"


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[pytest.mark.short] if KINDS[kind] is never_reading else []) for kind in KINDS],
)
def test_other_clients_are_not_affected(mesh: Mesh, scenario, kind: str) -> None:
    mesh.hello.scale(3)
    server = mesh.start_xds_server()
    with (
        mesh.load(server.address) as load,
        scenario(kind, load) as run,
        repeatedly(mesh.change_big_service, every=0.2),
        KINDS[kind](server),
    ):
        run.now(kind)
        load.wait_for(mesh.hello.names)
        load.go_on_for(SECONDS)
        run.now(f"{kind}; a pod joins")
        mesh.hello.scale(4)
        ready = time.monotonic()
        run.recovered(load.wait_for(mesh.hello.names) - ready, RECOVERED)
        assert time.monotonic() - ready < PROMPTLY


def test_streams_of_stalled_clients_are_closed(mesh: Mesh, scenario) -> None:
    mesh.hello.scale(2)
    server = mesh.start_xds_server()
    with (
        mesh.load(server.address) as load,
        scenario(f"{NOT_READING} clients never read, until their streams are closed", load) as run,
        repeatedly(mesh.change_big_service, every=0.2),
        never_reading(server),
    ):
        subscribed, before = time.monotonic(), metric(server, "process_resident_memory_bytes")
        run.now("clients never read")
        load.go_on_for(5)
        wait_until("only the other streams to be open", lambda: streams(server) == CLIENTS)
        run.recovered(time.monotonic() - subscribed, "all subscribed → all streams closed")
        grown = metric(server, "process_resident_memory_bytes") - before
        run.note(f"memory {grown / 2**20:+.0f} MiB")
