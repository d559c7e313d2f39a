"""The command line of xds-server: each command is one function."""

from servicekit import early

early.remember_signals()

import gc  # noqa: E402 - a signal during the imports must not be lost
import sys  # noqa: E402

from servicekit import commands, lifecycle, logs  # noqa: E402
from xds_server.commands import bootstrap, explain, lint  # noqa: E402
from xds_server.settings import Settings  # noqa: E402

PROGRAM = "xds-server"

program = commands.new_app("A small xDS control plane: proxyless gRPC load balancing on Kubernetes.")


@commands.command(program, Settings)
def serve(configuration: Settings) -> int:
    """Serves xDS until SIGTERM or SIGINT; returns the exit code."""
    # The other commands need nothing of it, and start in a fraction of the time.
    from xds_server import app  # noqa: PLC0415

    logs.configure(configuration.log_format, configuration.log_level)
    # With thousands of streams and services, a collection after every 700 new objects, the default, would scan them all
    # in the middle of a change. https://docs.python.org/3/library/gc.html#gc.set_threshold
    # The objects that the imports made live as long as the program and are never scanned.
    gc.set_threshold(10_000)
    gc.freeze()
    return lifecycle.run(PROGRAM, lambda stop: app.serve(configuration, stop))


for module, command, summary in (
    (explain, explain.explain, "Explains what a client gets for a name."),
    (lint, lint.lint, "Checks files of routes, policies and Services."),
    (bootstrap, bootstrap.bootstrap, "Prints the bootstrap of a client."),
):
    program.command(epilog=module.EXAMPLES, short_help=summary)(command)


def main() -> int:
    """Runs the program and returns its exit code."""
    return commands.run(program, PROGRAM)


if __name__ == "__main__":
    sys.exit(main())
