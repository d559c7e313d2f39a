"""The client program: calls a greeter for ever and tells who answered and what xDS brought.

It must not know what it is called or whom it calls: a program like hello-client brings both.
"""

import os
from collections.abc import Sequence

from greeting.client.settings import ClientSettings
from servicekit import logs
from servicekit.settings import load


def run(settings_type: type[ClientSettings], *, program: str, arguments: Sequence[str]) -> int:
    """Run the program and return its exit code."""
    settings = load(settings_type, program=program, arguments=arguments)
    logs.configure(settings.log_format, settings.log_level)
    if "GRPC_TRACE" not in os.environ:
        # gRPC repeats on stderr, over several lines each time, what the log says: a call's error, a NACK.
        # It reads this variable while it is imported, so that the import has to wait.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from greeting.client import program as client  # noqa: PLC0415

    return client.run(settings, program)
