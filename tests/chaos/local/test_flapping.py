"""A pod changes its readiness a thousand times a minute: few pushes, the last state always arrives, little CPU."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.crowd import Crowd
from tests.chaos.load import CLIENTS
from tests.chaos.mesh import NAME, Mesh, Pod
from tests.support.xds_server import XdsServer
from xds_server.ads.stream import Pace

GATHER_SECONDS = Pace().gather
CHANGES_A_MINUTE = 1_000
MOST_PUSHES_A_SECOND = 10
MOST_CPU = 0.2
"""Of a core."""


def test_flapping(mesh: Mesh, scenario) -> None:
    mesh.hello.scale(3)
    server = mesh.start_xds_server()
    with (
        mesh.load(server.address) as load,
        Crowd(server.address, 20, NAME) as crowd,
        scenario("endpoints flap 1,000 times a minute", load) as run,
    ):
        load.wait_for(mesh.hello.names)
        crowd.wait_until_answered()
        *steady, flapping = mesh.hello.pods

        run.now("single changes")
        delays = []
        for ready in (False, True) * 5:
            time.sleep(
                2 * GATHER_SECONDS
            )  # each change is to come after a quiet moment: nothing tells when it is over
            delays.append(change(mesh, crowd, steady, flapping, ready=ready))
        # A server that batched the first change too would take longer each time.
        assert min(delays) < GATHER_SECONDS, "the first change is sent at once"
        run.note(f"a single change reaches all in {sorted(delays)[len(delays) // 2] * 1000:.0f} ms (median)")

        run.now("flapping")
        pushes, cpu, began = crowd.pushes, cpu_seconds(server), time.monotonic()
        for number in range(CHANGES_A_MINUTE):
            time.sleep(
                max(0, began + number * 60 / CHANGES_A_MINUTE - time.monotonic())
            )  # the pace of the changes
            mesh.api.apply(flapping.endpoint_slice(ready=number % 2 == 0))
        last = change(mesh, crowd, steady, flapping, ready=True)
        run.recovered(last, "the last change → all clients have it")
        lasted = time.monotonic() - began
        pushes, cpu = crowd.pushes - pushes, (cpu_seconds(server) - cpu) / lasted
        assert 1 < pushes <= MOST_PUSHES_A_SECOND * lasted + 1
        assert cpu < MOST_CPU
        run.note(
            f"{CHANGES_A_MINUTE:,} changes, {pushes / lasted:.1f} pushes a second to each of {crowd.clients + CLIENTS} "
            f"clients ({crowd.most_a_second} in a second at most), {cpu:.1%} of a core"
        )


def change(mesh: Mesh, crowd: Crowd, steady: Sequence[Pod], flapping: Pod, *, ready: bool) -> float:
    """Makes one change and returns the seconds until all clients had it."""
    began = time.monotonic()
    mesh.api.apply(flapping.endpoint_slice(ready=ready))
    return crowd.wait_for(pod.address for pod in [*steady, *([flapping] if ready else [])]) - began


def cpu_seconds(server: XdsServer) -> float:
    """Returns the CPU time that a process has used: utime and stime of proc_pid_stat(5)."""
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
