"""The cost of routes, policies and zones: of a change of each, in small and in large meshes."""

import contextlib
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import running
from bench.report import Report
from tests.support.waiting import wait_until
from tests.support.xds_server import XdsServer

STREAMS = 100
PAUSE = 0.3
"""Seconds between two changes: more than the time in which changes are gathered."""


def measure(report: Report) -> None:
    """Measures changes in meshes with more and more routes, and endpoints with and without zone hints."""
    _routes(report)
    _zones(report)


def _routes(report: Report) -> None:
    services = 100 if report.quick else 1_000
    changes = 5 if report.quick else 40
    sizes = (0, 1, services)
    rows = []
    for step in report.steps([f"{services:,} services, {count:,} routes and policies" for count in sizes]):
        count = int(step.split(", ")[1].split()[0].replace(",", ""))
        with _server(services=services, endpoints=10, routes=count, policies=count) as (server, api):
            target = running.Target(
                [server.address], [server.pid], [f"--post=http://{api}/set?address={{address}}"]
            )
            one = target.load(streams=STREAMS, services=1, changes=changes)
            costs: list[object] = [one["change_cpu_ms"][0]]
            load = target.start_load(streams=STREAMS, services=1, changes=0, hold="60s")
            try:
                wait_until("all streams", lambda: running.metrics(server.admin)["xds_streams"] >= STREAMS)
                time.sleep(1)
                costs.extend(
                    _cpu(server.pid, api, path, changes) if count else ""
                    for path in ("route?weight={}", "policy?timeout={}")
                )
            finally:
                load.kill()
                load.communicate()
            rows.append((services, count, one["last_ms"], *costs, one["memory_mib"][0]))
    report.table(
        "traffic",
        (
            *("services", "with a route and a policy", "endpoint change: last, ms", "CPU, ms"),
            *("route change: CPU, ms", "policy change: CPU, ms", "memory, MiB"),
        ),
        rows,
    )


def _cpu(pid: int, api: str, path: str, changes: int) -> float:
    """Makes changes; returns the CPU time that the server spends on each, in milliseconds."""
    before = running.usage(pid).cpu
    for number in range(changes):
        with urllib.request.urlopen(f"http://{api}/{path.format(10 + number)}", data=b"", timeout=10):
            pass
        time.sleep(PAUSE)
    return (running.usage(pid).cpu - before) * 1000 / changes


def _zones(report: Report) -> None:
    streams = 200 if report.quick else 5_000
    found: dict[bool, dict[str, Any]] = {}
    for step in report.steps(["without hints", "with zone hints"]):
        hints = step != "without hints"
        with _server(services=1, endpoints=1_000, zones=3, hints=str(hints).lower()) as (server, api):
            target = running.Target(
                [server.address], [server.pid], [f"--post=http://{api}/set?address={{address}}"]
            )
            found[hints] = target.load(streams=streams, zones=3, changes=5 if report.quick else 10)
    rows = []
    for hints, one in found.items():
        last, cpu = one["last_ms"], one["change_cpu_ms"][0]
        plain = found[False]
        ratios = (
            (f"{last / plain['last_ms']:.2f}", f"{cpu / plain['change_cpu_ms'][0]:.2f}")
            if hints
            else ("", "")
        )
        rows.append(
            (streams, "yes" if hints else "no", last, ratios[0], cpu, ratios[1], one["memory_mib"][0])
        )
    report.table(
        "zones",
        ("streams in 3 zones", "zone hints", "last, ms", "ratio", "CPU a change, ms", "ratio", "memory, MiB"),
        rows,
    )


@contextlib.contextmanager
def _server(**options: object) -> Iterator[tuple[XdsServer, str]]:
    """Runs xds-server with a stub of the API server; yields it and the address of the stub."""
    with tempfile.TemporaryDirectory() as directory, running.api_server(**options) as api:
        config = str(running.kubeconfig(Path(directory) / "kubeconfig", api))
        with XdsServer(None, KUBECONFIG=config) as server:
            server.wait_until_ready()
            yield server, api
