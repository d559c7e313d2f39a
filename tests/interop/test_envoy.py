"""Envoy's counters: each response is accepted once, and no response is sent without a change."""

import re
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.interop.backend import Backend
from tests.interop.client import call_until
from tests.interop.envoy import ENVOY, Envoy
from tests.interop.mesh import NAME, SERVICE, TARGET, Mesh
from tests.interop.traffic import everything
from tests.support import objects
from tests.support.waiting import wait_until

COUNTERS = {
    "CDS": r"^cluster_manager\.cds\.update_success$",
    "EDS": rf"^cluster\.{re.escape(NAME.replace(':', '_'))}\.update_success$",
    "RDS": r"^http\.calls\.rds\..*\.update_success$",
}


def test_traffic_objects(mesh: Mesh) -> None:
    """Every feature at once is accepted, and its weights count."""
    with Backend("stable") as stable, Backend("canary") as canary, ExitStack() as stack:
        objects.write(mesh.folder / "traffic.yaml", *everything([stable], canary))
        wait_until("the objects to be known", lambda: SERVICE in mesh.server.get("/debug/services")[1])
        proxy = stack.enter_context(Envoy(ENVOY.build(), mesh.server.address, "everything"))
        proxy.open("a", TARGET)
        replies = proxy.call("a", 60)
        assert replies.failures == []
        assert set(replies.hosts) == {stable.name, canary.name}
        rejected = proxy.stats(r"\.update_rejected$")
        assert rejected
        assert set(rejected.values()) == {0}


@pytest.fixture
def proxy(mesh: Mesh) -> Iterator[Envoy]:
    mesh.serve({"zone-a": mesh.greeters[:1]})
    with Envoy(ENVOY.build(), mesh.server.address, "counted") as envoy:
        envoy.open("a", TARGET)
        yield envoy


def counted(envoy: Envoy) -> dict[str, int]:
    return {kind: sum(envoy.stats(pattern).values()) for kind, pattern in COUNTERS.items()}


@pytest.mark.smoke
def test_updates(mesh: Mesh, proxy: Envoy) -> None:
    assert proxy.call("a", 2).hosts == 2 * [mesh.greeters[0].name]
    assert counted(proxy) == {"CDS": 1, "EDS": 1, "RDS": 1}

    mesh.serve({"zone-a": mesh.greeters[1:2]})
    call_until(proxy, "a", "the change", lambda seen: set(seen.hosts) == {mesh.greeters[1].name})
    assert counted(proxy) == {"CDS": 1, "EDS": 2, "RDS": 1}

    # Only subscribed resources are sent; a wildcard subscribes to every cluster.
    mesh.serve({"zone-a": mesh.greeters[:1]}, "another")
    wait_until("the new cluster", lambda: counted(proxy)["CDS"] == 2)
    assert counted(proxy) == {"CDS": 2, "EDS": 2, "RDS": 1}

    mesh.delete()
    wait_until("the cluster to be removed", lambda: counted(proxy)["CDS"] == 3)
    wait_until("the deletion to be known", lambda: SERVICE not in mesh.server.get("/debug/services")[1])
    mesh.serve({"zone-b": mesh.greeters[2:3]})
    call_until(proxy, "a", "the new endpoints", lambda seen: set(seen.hosts) == {mesh.greeters[2].name})
    assert counted(proxy)["CDS"] == 4

    rejected = proxy.stats(r"\.update_rejected$")
    assert rejected
    assert set(rejected.values()) == {0}
