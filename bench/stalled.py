"""How much clients that stop reading delay a change to the other clients."""

import contextlib
import tempfile
from pathlib import Path

from bench import running
from bench.fanout import API, PEER
from bench.report import Report

ENDPOINTS = 1_000
"""So many that two unread changes fill a connection's flow-control window."""


def measure(report: Report) -> None:
    """Measures the same change with and without stalled clients."""
    streams, stalled = (200, 10) if report.quick else (950, 50)
    steps = {
        f"{streams} streams, {count} never read, {name}": (name, count)
        for name in (PEER, API)
        for count in (0, stalled)
    }
    rows = []
    for step in report.steps(list(steps)):
        name, count = steps[step]
        with tempfile.TemporaryDirectory() as directory, _start(name, Path(directory)) as target:
            one = target.load(streams=streams, stalled=count, changes=5 if report.quick else 20)
        rows.append(
            (
                *(streams, count, name, one["median_ms"], one["last_ms"], one["last_worst_ms"]),
                *(one["change_cpu_ms"][0], one["memory_mib"][0]),
            )
        )
    report.table(
        "stalled",
        (
            *("reading streams", "stalled streams", "server", "median, ms", "last, ms", "worst last, ms"),
            *("CPU a change, ms", "memory, MiB"),
        ),
        rows,
    )


def _start(name: str, directory: Path) -> contextlib.AbstractContextManager[running.Target]:
    if name == PEER:
        return running.peer(services=1, endpoints=ENDPOINTS)
    return running.ours(directory, services=1, endpoints=ENDPOINTS)
