"""The command line: ``xds-server serve``."""

import gc
import sys

from servicekit import lifecycle, logs, settings
from xds_server import app
from xds_server.settings import Settings

USAGE = """usage: xds-server serve [--SETTING VALUE ...]

A small xDS control plane: proxyless gRPC load balancing on Kubernetes.

commands:
  serve   serve xDS until SIGTERM or SIGINT; `xds-server serve --help` lists the settings
"""


def main() -> None:
    """Entry point of the console script."""
    match sys.argv[1:]:
        case ["serve", *arguments]:
            serve(arguments)
        case ["-h" | "--help"]:
            sys.stdout.write(USAGE)
        case []:
            sys.stderr.write(USAGE)
            raise SystemExit(2)
        case [other, *_]:
            sys.stderr.write(
                f"xds-server: error: unknown command {other!r}; the only one is `xds-server serve`\n"
            )
            raise SystemExit(2)


def serve(arguments: list[str]) -> None:
    """Runs the server; ends the process with its exit code."""
    configuration = settings.load(Settings, program="xds-server serve", arguments=arguments)
    logs.configure(configuration.log_format, configuration.log_level)
    # Thousands of streams and services live for hours: the collector, which starts anew after every 700 new
    # objects, would go through them all in the midst of a change. https://docs.python.org/3/library/gc.html#gc.set_threshold
    # What the imports have left lives as long as the program: it is not gone through at all.
    gc.set_threshold(10_000)
    gc.freeze()
    raise SystemExit(lifecycle.run("xds-server", lambda stop: app.serve(configuration, stop)))


if __name__ == "__main__":
    main()
