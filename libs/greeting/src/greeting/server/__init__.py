"""The server program: serves the greeter with health and reflection until a shutdown, then drains.

A program like hello-server brings its name and its defaults.
"""

import os

from greeting.server.settings import ServerSettings
from servicekit import commands, logs


def run(program: str, settings_type: type[ServerSettings]) -> int:
    """Runs the program and returns its exit code."""

    def serve_until_shutdown(settings: ServerSettings) -> int:
        logs.configure(settings.log_format, settings.log_level)
        if settings.xds_server and "GRPC_TRACE" not in os.environ:
            # gRPC writes to stderr, over several lines each time, what the log says.
            # It reads this variable while it is imported, so the import has to wait.
            os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        from greeting.server import program as server  # noqa: PLC0415

        return server.run(settings, program)

    return commands.run_command(program, settings_type, serve_until_shutdown)
