"""What TLS towards the control plane costs: connecting, a change, and memory; compared with go-control-plane."""

import contextlib
import tempfile
from pathlib import Path
from typing import Any

from bench import running
from bench.report import Report
from bench.running import Target
from local_demo.certificates import Authority, spiffe_id

OURS, PEER = "xds-server", "go-control-plane"
ENDPOINTS = 10


def measure(report: Report) -> None:
    """Measures the same load with and without mutual TLS."""
    counts = (100,) if report.quick else (1_000, 5_000)
    changes = 5 if report.quick else 20
    steps = {
        f"{count:,} streams, {name}{', mutual TLS' if encrypted else ''}": (count, name, encrypted)
        for count in counts
        for name in (PEER, OURS)
        for encrypted in (False, True)
    }
    rows, plain = [], {}
    for step in report.steps(list(steps)):
        count, name, encrypted = steps[step]
        with tempfile.TemporaryDirectory() as directory:
            server, client = _certificates(Path(directory))
            with _start(name, Path(directory), server if encrypted else None) as target:
                options = {"tls": client} if encrypted else {}
                found = target.load(streams=count, changes=changes, **options)
        if not encrypted:
            plain[count, name] = found
        rows.append(_row(count, name, found, plain[count, name], encrypted=encrypted))
    report.table(
        "tls",
        (
            *("streams", "server", "mutual TLS", "all have endpoints, s", "CPU of that, s", "ratio"),
            *("last, ms", "CPU a change, ms", "ratio", "memory, MiB"),
        ),
        rows,
    )


def _row(
    count: int, name: str, found: dict[str, Any], plain: dict[str, Any], *, encrypted: bool
) -> tuple[object, ...]:
    """A row; the ratios are to the same server without TLS."""

    def ratio(key: str) -> str:
        return f"{found[key][0] / plain[key][0]:.2f}" if encrypted and plain[key][0] else ""

    connecting, changing = "connect_cpu_ms", "change_cpu_ms"
    return (
        *(count, name, "yes" if encrypted else "no"),
        *(found["connect_ms"] / 1000, found[connecting][0] / 1000, ratio(connecting)),
        *(found["last_ms"], found[changing][0], ratio(changing), found["memory_mib"][0]),
    )


def _certificates(folder: Path) -> tuple[Path, Path]:
    """Writes the certificates of a server and of its clients."""
    authority = Authority()
    server, client = folder / "server", folder / "client"
    authority.issue(names=["localhost"]).write(server, authority)
    authority.issue(spiffe_ids=[spiffe_id("load")]).write(client, authority)
    return server, client


def _start(name: str, folder: Path, tls: Path | None) -> contextlib.AbstractContextManager[Target]:
    if name == PEER:
        return running.peer(services=1, endpoints=ENDPOINTS, tls=tls)
    return running.ours(folder, services=1, endpoints=ENDPOINTS, tls=tls)
