"""A change sent to many streams, and all clients connecting at once; compared with go-control-plane in every step."""

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import running
from bench.report import Report
from bench.running import Target

MANY = 1_000_000
"""Endpoints in all responses to a change; from this number on, fewer changes are measured."""
PEER, API, FILES = "go-control-plane", "xds-server (API)", "xds-server (files)"


def measure(report: Report) -> None:
    """Measures every size with each server."""
    streams = (100, 1000) if report.quick else (100, 1000, 5000)
    sizes = [(count, endpoints) for endpoints in (10, 1000) for count in streams]
    steps = {
        f"{count:,} streams x {endpoints:,} endpoints, {name}": (count, endpoints, name)
        for count, endpoints in sizes
        for name in (PEER, API, FILES)
    }
    found: dict[tuple[int, int, str], dict[str, Any]] = {}
    for step in report.steps(list(steps)):
        count, endpoints, name = steps[step]
        with tempfile.TemporaryDirectory() as directory, _start(name, Path(directory), endpoints) as target:
            found[steps[step]] = target.load(
                streams=count, changes=_changes(count, endpoints, quick=report.quick)
            )
    rows, storm = [], []
    for (count, endpoints, name), one in found.items():
        peer = found[count, endpoints, PEER]
        ratio = ratio_to(peer, one, name)
        rows.append(
            (
                *(
                    count,
                    endpoints,
                    name,
                    one["first_ms"],
                    one["median_ms"],
                    one["last_ms"],
                    ratio("last_ms"),
                ),
                *(one["change_cpu_ms"][0], ratio("change_cpu_ms"), one["memory_mib"][0], ratio("memory_mib")),
            )
        )
        if endpoints == 10 and name != FILES:  # noqa: PLR2004 - other sizes only change the responses
            storm.append(
                (
                    *(count, name, one["connect_ms"] / 1000, ratio("connect_ms")),
                    *(one["connect_cpu_ms"][0] / 1000, ratio("connect_cpu_ms")),
                )
            )
    report.table(
        "fanout",
        (
            *("streams", "endpoints", "server", "first, ms", "median, ms", "last, ms", "ratio"),
            *("CPU a change, ms", "ratio", "memory, MiB", "ratio"),
        ),
        rows,
    )
    report.table("storm", ("clients", "server", "all have endpoints, s", "ratio", "CPU, s", "ratio"), storm)
    groups = [f"{count:,} x {endpoints:,}" for count, endpoints in sizes]
    for chart, key, unit in (
        ("fanout-last", "last_ms", "until the last stream has a change, ms"),
        ("fanout-cpu", "change_cpu_ms", "server CPU a change, ms"),
    ):
        report.bars(
            chart,
            unit,
            groups,
            {name: [_value(found[*size, name], key) for size in sizes] for name in (PEER, API, FILES)},
            log=True,
        )
    _share(report)


def _share(report: Report) -> None:
    """Measures one and two replicas with the same number of streams."""
    count = 100 if report.quick else 1000
    rows = []
    for step in report.steps([f"{number} x xds-server" for number in (1, 2)]):
        number = int(step.split()[0])
        with (
            tempfile.TemporaryDirectory() as directory,
            running.ours(Path(directory), services=1, endpoints=10, replicas=number) as target,
        ):
            one = target.load(streams=count, changes=_changes(count, 10, quick=report.quick))
        cpu, memory = (
            " + ".join(f"{value:.0f}" for value in one[key]) for key in ("change_cpu_ms", "memory_mib")
        )
        rows.append((number, count, one["connect_ms"] / 1000, one["last_ms"], cpu, memory))
    report.table(
        "replicas",
        (
            *("replicas", "streams", "all have endpoints, s", "last, ms", "CPU a change of each, ms"),
            "memory of each, MiB",
        ),
        rows,
    )


def _start(name: str, directory: Path, endpoints: int) -> contextlib.AbstractContextManager[Target]:
    if name == PEER:
        return running.peer(services=1, endpoints=endpoints)
    if name == API:
        return running.ours(directory, services=1, endpoints=endpoints)
    return running.ours_with_files(directory, endpoints=endpoints)


def _changes(streams: int, endpoints: int, *, quick: bool) -> int:
    """Returns the number of changes: enough for a stable median, fewer if each takes long."""
    if quick:
        return 5
    return 10 if streams * endpoints >= MANY else 20


def _value(one: dict[str, Any], key: str) -> float:
    value = one[key]
    return float(value[0] if isinstance(value, list) else value)


def ratio_to(peer: dict[str, Any], one: dict[str, Any], name: str) -> Callable[[str], str]:
    """Returns a function that gives a figure of a server as a multiple of go-control-plane's."""

    def ratio(key: str) -> str:
        if name == PEER or not _value(peer, key):
            return ""
        return f"{_value(one, key) / _value(peer, key):.2f}"

    return ratio
