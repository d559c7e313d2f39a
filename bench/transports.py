"""The cost of each way to serve thousands of streams with grpc in Python, measured with a minimal server."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from bench import running
from bench.bare import ENDPOINTS_EACH, WAYS
from bench.fanout import PEER, ratio_to
from bench.report import Report
from tests.support.running import Running, environment, free_port


def measure(report: Report) -> None:
    """Measures each way, and go-control-plane."""
    count, changes = (100, 5) if report.quick else (1000, 20)
    found: dict[str, dict[str, Any]] = {}
    for step in report.steps([PEER, *WAYS]):
        with contextlib.ExitStack() as stack:
            target = stack.enter_context(
                running.peer(services=1, endpoints=ENDPOINTS_EACH) if step == PEER else _server(step)
            )
            found[step] = target.load(streams=count, changes=changes)
    rows = []
    for name, one in found.items():
        ratio = ratio_to(found[PEER], one, name)
        rows.append(
            (
                *(name, one["last_ms"], ratio("last_ms"), one["change_cpu_ms"][0], ratio("change_cpu_ms")),
                *(one["connect_cpu_ms"][0], one["memory_mib"][0]),
            )
        )
    report.table(
        "transports",
        (
            *(f"{count:,} streams served by", "last, ms", "ratio", "CPU a change, ms", "ratio"),
            *("CPU for all to connect, ms", "memory, MiB"),
        ),
        rows,
    )


@contextlib.contextmanager
def _server(way: str) -> Iterator[running.Target]:
    port, control = free_port(), free_port()
    with Running(
        sys.executable, "-m", "bench.bare", way, str(port), str(control), env=environment()
    ) as program:
        program.wait_for_line("listening")
        change = f"--post=http://127.0.0.1:{control}/set?address={{address}}"
        yield running.Target([f"127.0.0.1:{port}"], [program.pid], [change])
