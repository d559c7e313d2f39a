"""The cost of the size of a mesh: a change, a new client, memory, the start, and a poll that finds no change."""

import contextlib
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench import running
from bench.fanout import API, PEER, ratio_to
from bench.report import Report
from tests.support.waiting import wait_until
from tests.support.xds_server import XdsServer

STREAMS = 100
ENDPOINTS = 10
TYPES = 4
POLL_SECONDS = 5.0
POLLS = 3


def measure(report: Report) -> None:
    """Measures meshes of each size."""
    sizes = (1, 1_000) if report.quick else (1, 100, 1_000, 10_000)
    steps: dict[str, Callable[[], None]] = {}
    found: dict[tuple[int, str], dict[str, Any]] = {}
    starts: list[tuple[object, ...]] = []

    def under_load(services: int, name: str) -> None:
        with tempfile.TemporaryDirectory() as directory, _start(name, Path(directory), services) as target:
            # All streams subscribe to the same service, whatever the size of the mesh.
            load = {"streams": STREAMS, "services": 1, "changes": 20, "new-clients": 20}
            found[services, name] = target.load(**load)

    def start(services: int) -> None:
        starts.append(_polls(services))

    for services in sizes:
        for name in (PEER, API):
            steps[f"{services:,} services, {name}"] = partial(under_load, services, name)
    for services in sizes[-2:]:
        steps[f"start and polls, {services:,} services"] = partial(start, services)
    for step in report.steps(list(steps)):
        steps[step]()

    rows = []
    for (services, name), one in found.items():
        ratio = ratio_to(found[services, PEER], one, name)
        rows.append(
            (
                *(services, name, one["last_ms"], ratio("last_ms"), one["change_cpu_ms"][0]),
                *(ratio("change_cpu_ms"), one["new_client_ms"], one["new_client_cpu_ms"][0]),
                *(one["memory_mib"][0], ratio("memory_mib")),
            )
        )
    report.table(
        "services",
        (
            *("services", "server", "last, ms", "ratio", "CPU a change, ms", "ratio"),
            *("new client waits, ms", "CPU of a new client, ms", "memory, MiB", "ratio"),
        ),
        rows,
    )
    report.table(
        "start",
        (
            *("services", "endpoints", "start to ready, s", "of it, listing and building, s"),
            *("CPU of a poll without changes, s", "responses sent meanwhile"),
        ),
        starts,
    )


def _start(name: str, directory: Path, services: int) -> contextlib.AbstractContextManager[running.Target]:
    if name == PEER:
        return running.peer(services=services, endpoints=ENDPOINTS)
    return running.ours(directory, services=services, endpoints=ENDPOINTS)


def _polls(services: int) -> tuple[object, ...]:
    """Measures the start of a server, and its polls while streams are open."""
    with (
        tempfile.TemporaryDirectory() as directory,
        running.api_server(services=services, endpoints=ENDPOINTS) as api,
    ):
        config = str(running.kubeconfig(Path(directory) / "kubeconfig", api))
        began = time.monotonic()
        with XdsServer(None, KUBECONFIG=config, POLL_INTERVAL=str(POLL_SECONDS)) as server:
            server.wait_for_line('"listening"')
            listening = time.monotonic()
            server.wait_until_ready()
            ready = time.monotonic()
            target = running.Target([server.address], [server.pid], [])
            load = target.start_load(
                streams=STREAMS, services=1, changes=0, hold=f"{(POLLS + 1) * POLL_SECONDS}s"
            )
            wait_until(
                "responses to all streams", lambda: _sent(running.metrics(server.admin)) == STREAMS * TYPES
            )
            # Sleeps instead of reading metrics: that would cost more than a poll of a small mesh.
            before, cpu = running.metrics(server.admin), running.usage(server.pid).cpu
            time.sleep(POLLS * POLL_SECONDS)
            after, cpu = running.metrics(server.admin), running.usage(server.pid).cpu - cpu
            polls = min(
                after[name] - before[name] for name in after if name.startswith("discovery_lists_total")
            )
            sent = _sent(after) - _sent(before)
            running.finish(load)
    return services, services * ENDPOINTS, ready - began, ready - listening, cpu / polls, int(sent)


def _sent(metrics: dict[str, float]) -> float:
    return sum(value for name, value in metrics.items() if name.startswith("xds_responses_total"))
