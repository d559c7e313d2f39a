"""Runs the benchmarks: ``python -m bench [PART ...] [--quick] [--publish]``; `task bench` does it with all it needs."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from bench import clients, fanout, neighbours, reply, running, services, transports, ways, why
from bench.report import Report


@dataclass(frozen=True)
class Part:
    """A part of the benchmarks."""

    measure: Callable[[Report], None]
    needs_go: bool = True
    needs_cluster: bool = False


PARTS = {
    "fanout": Part(fanout.measure),
    "services": Part(services.measure),
    "neighbours": Part(neighbours.measure),
    "reply": Part(reply.measure),
    "transports": Part(transports.measure),
    "clients": Part(clients.measure),
    "why": Part(why.measure, needs_cluster=True),
}


def main() -> None:
    """Entry point."""
    arguments = parser().parse_args()
    with_go = running.have_go()
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
                f"bench: {name} is SKIPPED: it needs Go (https://go.dev/doc/install), in which its load generator is written"
            )
            continue
        if part.needs_cluster and (lacking := ways.missing()):
            running.say(f"bench: {name} is SKIPPED: {lacking}")
            continue
        part.measure(Report(name, quick=arguments.quick, publishing=arguments.publish or not arguments.quick))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(prog="bench", description="Measures, and writes docs/benchmarks.md.")
    found.add_argument(
        "parts",
        nargs="*",
        choices=[*PARTS, []],
        metavar="PART",
        help=f"of {', '.join(PARTS)}; all unless named",
    )
    found.add_argument("--quick", action="store_true", help="small sizes; shown, and not written into docs/")
    found.add_argument(
        "--publish", action="store_true", help="write what a quick run measures into docs/ as well"
    )
    return found


if __name__ == "__main__":
    main()
