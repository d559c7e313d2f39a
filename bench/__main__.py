"""Runs the benchmarks: ``python -m bench [PART ...] [--quick] [--publish]``. `task bench` installs what they need."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from bench import (
    clients,
    encryption,
    fanout,
    loads,
    reply,
    running,
    services,
    stalled,
    traffic,
    transports,
    ways,
    why,
)
from bench.report import Report


@dataclass(frozen=True)
class Part:
    """One benchmark and its requirements."""

    measure: Callable[[Report], None]
    needs_go: bool = True
    needs_cluster: bool = False


PARTS = {
    "fanout": Part(fanout.measure),
    "tls": Part(encryption.measure),
    "services": Part(services.measure),
    "traffic": Part(traffic.measure),
    "loads": Part(loads.measure),
    "stalled": Part(stalled.measure),
    "reply": Part(reply.measure),
    "transports": Part(transports.measure),
    "clients": Part(clients.measure),
    "why": Part(why.measure, needs_cluster=True),
}


def main() -> None:
    """Runs the parts that the command line names."""
    arguments = parser().parse_args()
    with_go = running.has_go()
    if with_go:
        running.say("building bench/go")
        running.build()
    problem = running.raise_file_limit()
    if problem:
        running.say(f"bench: {problem}")
    for name in arguments.parts or PARTS:
        part = PARTS[name]
        if part.needs_go and not with_go:
            running.say(
                f"bench: {name} is SKIPPED: its load generator is written in Go (https://go.dev/doc/install)"
            )
            continue
        if part.needs_cluster and (missing := ways.missing_tools()):
            running.say(f"bench: {name} is SKIPPED: {missing}")
            continue
        part.measure(Report(name, quick=arguments.quick, publishing=arguments.publish or not arguments.quick))


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    found = argparse.ArgumentParser(
        prog="bench", description="Runs benchmarks and writes docs/benchmarks.md."
    )
    found.add_argument(
        "parts",
        nargs="*",
        choices=[*PARTS, []],
        metavar="PART",
        help=f"{', '.join(PARTS)}; default: all",
    )
    found.add_argument("--quick", action="store_true", help="small sizes; printed, not written into docs/")
    found.add_argument(
        "--publish", action="store_true", help="write the results of a quick run into docs/ too"
    )
    return found


if __name__ == "__main__":
    main()
