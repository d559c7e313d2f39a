"""Slow, stuck, stormy and hostile clients of xds-server: the others notice nothing."""

import time

import pytest

from tests.chaos.bad_clients import KINDS, NOT_READING, again_and_again, never_reading
from tests.chaos.load import CLIENTS
from tests.chaos.mesh import Mesh, metric, streams
from tests.support.waiting import wait_until

SECONDS = 5
PROMPTLY = 10.0
"""Seconds: who waited for a client that doesn't read would wait until that is sent away, twice as long."""
RECOVERED = "a new pod ready → each client answered by it, while the others misbehave"


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[pytest.mark.short] if KINDS[kind] is never_reading else []) for kind in KINDS],
)
def test_others_notice_nothing(mesh: Mesh, scenario, kind: str) -> None:
    mesh.hello.scale(3)
    server = mesh.start_xds_server()
    with (
        mesh.load(server.address) as load,
        scenario(kind, load) as told,
        again_and_again(mesh.change_big_service, every=0.2),
        KINDS[kind](server),
    ):
        told.now(kind)
        load.wait_for(mesh.hello.names)
        load.go_on_for(SECONDS)
        told.now(f"{kind}; a pod joins")
        mesh.hello.scale(4)
        ready = time.monotonic()
        told.recovered(load.wait_for(mesh.hello.names) - ready, RECOVERED)
        assert time.monotonic() - ready < PROMPTLY


def test_who_takes_nothing_is_sent_away(mesh: Mesh, scenario) -> None:
    mesh.hello.scale(2)
    server = mesh.start_xds_server()
    with (
        mesh.load(server.address) as load,
        scenario(f"{NOT_READING} clients never read, until their streams are closed", load) as told,
        again_and_again(mesh.change_big_service, every=0.2),
        never_reading(server),
    ):
        subscribed, before = time.monotonic(), metric(server, "process_resident_memory_bytes")
        told.now("clients never read")
        load.go_on_for(5)
        wait_until("only the others to be there", lambda: streams(server) == CLIENTS)
        told.recovered(time.monotonic() - subscribed, "all subscribed → all streams closed")
        grown = metric(server, "process_resident_memory_bytes") - before
        told.note(f"memory {grown / 2**20:+.0f} MiB")
