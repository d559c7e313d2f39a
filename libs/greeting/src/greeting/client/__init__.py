"""The client program: calls a greeter until a shutdown and logs who answered and which xDS resources came.

A program like hello-client brings its name and its target.
"""

import os

from greeting.client.settings import ClientSettings
from servicekit import commands, logs


def run(program: str, settings_type: type[ClientSettings]) -> int:
    """Runs the program and returns its exit code."""

    def call(settings: ClientSettings) -> int:
        logs.configure(settings.log_format, settings.log_level)
        if "GRPC_TRACE" not in os.environ:
            # gRPC repeats on stderr, over several lines each time, what the log says: a call's error, a NACK.
            # It reads this variable while it is imported, so the import has to wait.
            os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        from greeting.client import program as client  # noqa: PLC0415

        return client.run(settings, program)

    return commands.run_command(program, settings_type, call)
