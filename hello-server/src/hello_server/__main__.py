"""The hello-server program: its name and its defaults."""

from servicekit import early

early.remember_signals()

import sys  # noqa: E402 - a signal during the imports must not be lost

from greeting import server  # noqa: E402
from greeting.server.settings import Greeting, ListenPort, ServerSettings  # noqa: E402


class Settings(ServerSettings):
    """A greeter that says Hello."""

    port: ListenPort = 50051
    greeting: Greeting = "Hello"


def main() -> int:
    """Runs the program and returns its exit code."""
    return server.run("hello-server", Settings)


if __name__ == "__main__":
    sys.exit(main())
