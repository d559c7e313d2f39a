"""The cost of `xds:///` for a client in Python, compared with a direct channel to the same server."""

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from bench import running as bench
from bench.report import Report
from tests.interop.mesh import Mesh
from tests.support import objects, running
from tests.support.running import Running

CALLER = Path(__file__).with_name("caller.py")
SERVICES = 200
ROUND = 0.25
"""Seconds: short, so that other load on the machine affects adjacent rounds equally."""
WORKLOADS = {
    f"{kind}, {concurrency} at a time": (kind, concurrency)
    for kind in ("unary", "streaming")
    for concurrency in (1, 16)
}
DIRECT, XDS = "direct", "xds:///"


@dataclass(frozen=True)
class Clients:
    """Runs client processes.

    Attributes:
        targets: Targets that lead to the same server, by name.
        environment: The environment of each client.
        mesh: A mesh with one service for each channel of a client.
    """

    targets: dict[str, str]
    environment: dict[str, str]
    mesh: Mesh

    def run(self, *command: object) -> Any:
        """Runs a client until it ends and returns its result."""
        with self.measured(*command) as found:
            return found

    @contextlib.contextmanager
    def measured(self, *command: object) -> Iterator[Any]:
        """Runs a client and yields its result while the client still runs.

        Raises:
            RuntimeError: the client has failed.
        """
        program = [sys.executable, str(CALLER), *map(str, command)]
        with subprocess.Popen(
            program, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as client:
            line = client.stdout.readline() if client.stdout else ""
            if not line:
                raise RuntimeError(f"a client has failed: {' '.join(map(str, command))}")
            yield json.loads(line)


def measure(report: Report) -> None:
    """Measures replies a second, the first reply, and many channels."""
    steps = [*WORKLOADS, "first reply", "channels"]
    with _start() as clients:
        replies: dict[str, list[list[tuple[float, float]]]] = {}
        for step in report.steps(steps):
            if step in WORKLOADS:
                rounds = 16 if report.quick else 100
                replies[step] = clients.run(
                    "throughput", *WORKLOADS[step], rounds, ROUND, *clients.targets.values()
                )
            elif step == "first reply":
                first = _first(clients, 5 if report.quick else 30)
            else:
                channels = _channels(clients)
        clients.mesh.assert_no_nacks()
    report.table(
        "clients",
        (
            *("workload", "direct, replies/s", "`xds:///`, replies/s", "ratio"),
            *("direct, client's CPU a reply, µs", "`xds:///`, µs", "ratio"),
        ),
        [(step, *compared(direct, xds)) for step, (direct, xds) in replies.items()],
    )
    report.table(
        "first-reply",
        ("channel", "new processes", "median, ms", "nine of ten within, ms", "slowest, ms"),
        [
            (name, len(found), median(found), quantiles(found, n=10, method="inclusive")[8], max(found))
            for name, found in first.items()
        ],
    )
    report.table(
        "channels",
        (
            "channels in one process",
            "threads",
            "more memory, MiB",
            "KiB a channel",
            "streams to `xds-server`",
        ),
        channels,
    )
    report.bars(
        "clients",
        "replies a second",
        list(replies),
        {
            name: [median(rate for rate, _ in found[number]) for found in replies.values()]
            for number, name in enumerate((DIRECT, XDS))
        },
    )


def compared(direct: list[tuple[float, float]], xds: list[tuple[float, float]]) -> tuple[float, ...]:
    """Returns the medians of replies a second and of CPU a reply, each followed by the median ratio of the rounds."""
    found: list[float] = []
    for first, second in zip(zip(*direct, strict=True), zip(*xds, strict=True), strict=True):
        ratio = median(b / a for a, b in zip(first, second, strict=True))
        found += [median(first), median(second), ratio]
    return tuple(found)


def _first(clients: Clients, times: int) -> dict[str, list[float]]:
    """Returns the milliseconds until the first reply of new processes; direct and xds alternate."""
    found: dict[str, list[float]] = {DIRECT: [], XDS: []}
    for _ in range(times):
        for name, target in clients.targets.items():
            found[name].append(clients.run("first", target))
    return found


def _channels(clients: Clients) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for name, targets in {
        "none": [],
        f"{SERVICES} direct": [clients.targets[DIRECT]] * SERVICES,
        f"{SERVICES} `xds:///`, one service": [clients.targets[XDS]] * SERVICES,
        f"{SERVICES} `xds:///`, a service each": [
            f"xds:///service-{n}.default:50051" for n in range(SERVICES)
        ],
    }.items():
        with clients.measured("channels", *targets) as found:
            streams = clients.mesh.metric("xds_streams")
        threads, memory = found["after"]
        more = memory - found["before"][1]
        each = more * 1024 / len(targets) if targets else ""
        rows.append((name, threads, more, each, round(streams)))
    return rows


@contextlib.contextmanager
def _start() -> Iterator[Clients]:
    """Runs a server and an xds-server."""
    port = running.free_port()
    address = f"127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        server = Running(str(bench.BUILD / "echo"), "serve", f"--listen={address}", env=running.environment())
        stack.enter_context(server).wait_for_line("listening")
        for number in range(SERVICES):
            name = f"service-{number}"
            objects.write(
                Path(directory) / f"{name}.yaml",
                objects.service(name),
                objects.endpoint_slice(name, name, **objects.endpoints("127.0.0.1", port=port)),
            )
        mesh = stack.enter_context(Mesh(Path(directory), []))
        environment = running.environment(GRPC_XDS_BOOTSTRAP_CONFIG=mesh.bootstrap("bench"))
        yield Clients({DIRECT: address, XDS: "xds:///service-0.default:50051"}, environment, mesh)
