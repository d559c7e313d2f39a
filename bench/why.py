"""Measures the article's argument: four ways to call five replicas, under load, scaling, crashes and a restart."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

from bench import timeline, ways
from bench.report import Report
from bench.ways import CLIENT, ROLES, WAYS, Way
from tests.cluster.kube import Cluster

DOCUMENT = "why-proxyless"
FEW, MANY = 2, 5
"""Replicas before and after scaling."""
RATE = 100
"""Calls a second by each way during an event."""
SETTLED = 3.0
"""Seconds of calls before an event."""
LIMIT = "50m"
"""CPU limit of each replica when replicas are to be the bottleneck."""
AT_LIMIT = 256
"""Concurrent calls with that limit."""
BUSY = 64
"""Concurrent calls of the chart of the CPU of a request."""
CRASHES_EVERY = 5
"""Seconds."""
CRASHES = 4
"""Fewer than replicas, so that none crashes twice: the kubelet delays a second restart by ten seconds."""

Answers = dict[str, Any]
"""The report of `echo call`."""


@dataclass
class Load:
    """The results of the rounds under one load.

    Attributes:
        reports: The reports of `echo call`.
        cpu: Microseconds of CPU a request, by role.
    """

    reports: list[Answers] = field(default_factory=list)
    cpu: list[dict[str, float]] = field(default_factory=list)

    def median(self, key: str) -> float:
        """Returns the median of a figure of the reports."""
        return float(median(report[key] for report in self.reports))

    def rate(self) -> float:
        """Returns the requests a second."""
        return float(median(report["requests"] / report["seconds"] for report in self.reports))

    def cost(self, role: str) -> float:
        """Returns the microseconds of CPU a request."""
        return median(cpu[role] for cpu in self.cpu)

    def failed(self) -> int:
        """Returns the number of failed requests."""
        return sum(sum(report["failures"].values()) for report in self.reports)


@dataclass
class Event:
    """The calls by each way during an event, such as a rollout.

    Attributes:
        reports: The reports of `echo call`, with a timeline.
        began: The begin of the event, in Unix time.
        done: The end of the event, in Unix time.
    """

    reports: dict[Way, Answers] = field(default_factory=dict)
    began: float = 0
    done: float = 0


def measure(report: Report) -> None:
    """Measures each way under load, then all ways at once during each event."""
    levels = (1, BUSY, 256) if report.quick else (1, 4, 16, BUSY, 256)
    rounds = 1 if report.quick else 3
    loads = {way: {level: Load() for level in levels} for way in WAYS}
    limited = {way: Load() for way in WAYS}
    scaling, crashes, restart = Event(), Event(), Event()
    steps: dict[str, Callable[[Cluster], object]] = {}
    for number in range(1, rounds + 1):
        for level in levels:
            for way in WAYS:
                name = f"round {number}, {level} at a time, {way.name}"
                steps[name] = partial(load, way=way, concurrency=level, into=loads[way][level])
    steps["limit the replicas"] = partial(limit, cpu=LIMIT)
    for number in range(1, rounds + 1):
        for way in WAYS:
            name = f"round {number}, limited, {way.name}"
            steps[name] = partial(load, way=way, concurrency=AT_LIMIT, into=limited[way])
    steps["remove the limit"] = partial(limit, cpu=None)
    steps["crashes"] = partial(crash, seconds=(CRASHES + 1) * CRASHES_EVERY - 1, into=crashes)
    steps["a rolling restart"] = partial(restart_all, seconds=60, into=restart)
    steps["scaling"] = partial(scale, seconds=30 if report.quick else 75, into=scaling)
    with ways.cluster() as cluster:
        for step in report.steps(list(steps)):
            steps[step](cluster)
    report_spread(report, {way: loads[way][levels[-1]] for way in WAYS})
    report_load(report, loads)
    report_limited(report, limited)
    report_scaling(report, scaling)
    report_losses(
        report, {f"a crash every {CRASHES_EVERY} s, {CRASHES} times": crashes, "a rolling restart": restart}
    )


def load(cluster: Cluster, way: Way, concurrency: int, into: Load) -> None:
    """Calls as fast as possible, with this many concurrent calls."""
    pods = ways.pods(cluster)
    before = ways.usage(cluster, pods)
    found = ways.call(cluster, way, f"--concurrency={concurrency}", "--duration=2s", "--warm-up=500ms")
    after = ways.usage(cluster, pods)
    answered = found["requests"] + found["warm_up"]
    cpu = {role: (after[role] - before[role]) / answered * 1e6 for role in ROLES.values()}
    cpu[CLIENT] = found["cpu_seconds"] / found["requests"] * 1e6
    into.reports.append(found)
    into.cpu.append(cpu)


def limit(cluster: Cluster, cpu: str | None) -> None:
    """Sets or removes the CPU limit of each replica."""
    container = {"name": "app", "resources": {"limits": {"cpu": cpu}}}
    patch = {"spec": {"template": {"spec": {"containers": [container]}}}}
    cluster.kubectl("patch", "deployment", ways.ECHO, "--patch", json.dumps(patch))
    cluster.rolled_out(ways.ECHO)


def crash(cluster: Cluster, seconds: float, into: Event) -> None:
    """Crashes, repeatedly, the replica that the Service's address leads to, and with it calls of every way."""
    during(cluster, seconds, lambda: None, into, {ways.SERVICE: (f"--crash-every={CRASHES_EVERY}s",)})


def restart_all(cluster: Cluster, seconds: float, into: Event) -> None:
    """Replaces the replicas one by one."""
    during(cluster, seconds, lambda: cluster.restart(ways.ECHO), into)


def scale(cluster: Cluster, seconds: float, into: Event) -> None:
    """Adds replicas."""
    cluster.scale(ways.ECHO, FEW)
    during(cluster, seconds, lambda: cluster.scale(ways.ECHO, MANY), into)


def during(
    cluster: Cluster,
    seconds: float,
    event: Callable[[], None],
    into: Event,
    more: Mapping[Way, Sequence[str]] | None = None,
) -> None:
    """Calls at a constant rate by all ways at once, and runs the event meanwhile."""
    arguments = (f"--rate={RATE}", f"--duration={seconds}s", "--bucket=500ms")
    with ThreadPoolExecutor(len(WAYS)) as pool:
        calls = {
            way: pool.submit(ways.call, cluster, way, *arguments, *(more or {}).get(way, ())) for way in WAYS
        }
        time.sleep(SETTLED)
        into.began = time.time()
        event()
        into.done = time.time()
        into.reports = {way: found.result() for way, found in calls.items()}


# ---- tables and charts ----


def report_spread(report: Report, loads: Mapping[Way, Load]) -> None:
    """Reports which replicas answer."""
    shares = {way: timeline.spread(found.reports[0]["hosts"], MANY) for way, found in loads.items()}
    report.table(
        "why-spread",
        ("way", *(f"replica {number}" for number in range(1, MANY + 1))),
        [(way.name, *(f"{one:.0f} %" for one in found)) for way, found in shares.items()],
        document=DOCUMENT,
    )
    report.bars(
        "why-spread",
        "% of the requests that each replica answers",
        [way.name for way in WAYS],
        {f"replica {n + 1}": [round(shares[way][n]) for way in WAYS] for n in range(MANY)},
    )


def report_load(report: Report, loads: Mapping[Way, Mapping[int, Load]]) -> None:
    """Reports the rate, latency and CPU of each way."""
    rows = []
    for level in loads[WAYS[0]]:
        for way in WAYS:
            found = loads[way][level]
            costs = [found.cost(role) for role in (CLIENT, *ROLES.values())]
            figures = (found.rate(), found.median("p50_ms"), found.median("p99_ms"))
            rows.append((level, way.name, *figures, *costs, sum(costs), found.failed()))
    report.table(
        "why-load",
        (
            *("at a time", "way", "requests/s", "p50, ms", "p99, ms"),
            *(f"CPU a request, µs: {CLIENT}", *ROLES.values(), "all", "failed"),
        ),
        rows,
        document=DOCUMENT,
    )
    for chart, unit, value in (
        ("why-rate", "requests a second", Load.rate),
        ("why-latency", "ms that 99 of 100 requests are answered in", lambda found: found.median("p99_ms")),
    ):
        report.lines(
            chart,
            ("requests at a time", unit),
            {way.name: [(level, value(found)) for level, found in loads[way].items()] for way in WAYS},
            log="x" if chart == "why-rate" else "xy",
        )
    busy = {way: loads[way][BUSY] for way in WAYS}
    report.stack(
        "why-cpu",
        f"µs of CPU a request, {BUSY} at a time",
        [way.name for way in WAYS],
        {role: [busy[way].cost(role) for way in WAYS] for role in (CLIENT, *ROLES.values())},
    )


def report_limited(report: Report, loads: Mapping[Way, Load]) -> None:
    """Reports each way with replicas as the bottleneck."""
    report.table(
        "why-limited",
        ("way", "requests/s", "p50, ms", "p99, ms"),
        [(way.name, one.rate(), one.median("p50_ms"), one.median("p99_ms")) for way, one in loads.items()],
        document=DOCUMENT,
    )
    rates = {"requests a second": [loads[way].rate() for way in WAYS]}
    report.bars("why-limited", "requests a second", [way.name for way in WAYS], rates)


def report_scaling(report: Report, event: Event) -> None:
    """Reports when new replicas get their share."""
    new = timeline.new_replicas([found["timeline"] for found in event.reports.values()], event.began)
    equal = (MANY - FEW) / MANY * 100
    lines: dict[str, list[tuple[float, float]]] = {}
    rows = []
    for way, found in event.reports.items():
        # The last bucket is incomplete.
        points = [(at - event.began, percent) for at, percent in timeline.share(found["timeline"], new)[:-1]]
        lines[way.name] = points
        # Nine tenths of it, as the calls of half a second are not spread perfectly evenly.
        reached = timeline.since(points, equal * 0.9)
        rows.append(
            (
                *(way.name, event.done - event.began),
                *(
                    f"not within {points[-1][0]:.0f}" if reached is None else reached,
                    f"{points[-1][1]:.0f} %",
                ),
                sum(found["failures"].values()),
            )
        )
    report.table(
        "why-scaling",
        ("way", "new pods ready, s", "equal share, s", "share at the end", "failed"),
        rows,
        document=DOCUMENT,
    )
    lines["an equal share"] = [(points[0][0], equal), (points[-1][0], equal)]
    report.lines(
        "why-scaling",
        (
            f"seconds since kubectl scale, {FEW} to {MANY} replicas",
            "% of the requests answered by the new ones",
        ),
        lines,
    )


def report_losses(report: Report, events: Mapping[str, Event]) -> None:
    """Reports the failed requests."""
    rows = []
    for way in WAYS:
        found = [event.reports[way] for event in events.values()]
        rows.append((way.name, *(_failed(one) for one in found)))
    report.table("why-losses", ("failed requests", *events), rows, document=DOCUMENT)


def _failed(found: Answers) -> str:
    failed = sum(found["failures"].values())
    return f"{failed:,} of {failed + found['requests']:,}"
