"""What load reports cost: the CPU of the server, and what they do to changes for other clients."""

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench import running
from bench.report import Report

REPORTER = Path(__file__).with_name("reporter.py")
INTERVAL = 5
STREAMS = 200


def measure(report: Report) -> None:
    """Measures the same changes with and without clients that report."""
    seconds, changes, most = (10, 20, 200) if report.quick else (60, 100, 1_000)
    rows = []
    for step in report.steps([f"{clients} clients report" for clients in (0, most)]):
        clients = int(step.partition(" ")[0])
        with (
            tempfile.TemporaryDirectory() as directory,
            running.ours(Path(directory), services=1, endpoints=10) as target,
            reporters(target.addresses[0], clients),
        ):
            before = running.usage(target.pids[0])
            time.sleep(seconds)
            after = running.usage(target.pids[0])
            one = target.load(streams=STREAMS, changes=changes)
        share = 100 * (after.cpu - before.cpu) / seconds
        rows.append(
            (clients, share, STREAMS, one["median_ms"], one["last_ms"], one["last_worst_ms"], after.memory)
        )
    report.table(
        "loads",
        (
            *("clients that report every 5 s", "CPU at rest, % of a core", "streams", "a change: median, ms"),
            *("last, ms", "worst last, ms", "memory, MiB"),
        ),
        rows,
    )


@contextlib.contextmanager
def reporters(address: str, clients: int) -> Iterator[None]:
    """Runs so many clients that report."""
    if not clients:
        yield
        return
    command = [sys.executable, str(REPORTER), address, str(clients), str(INTERVAL)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout  # noqa: S101 - for the type checker
            if process.stdout.readline() != "reporting\n":
                raise RuntimeError("the clients that report have failed")
            yield
        finally:
            process.terminate()
