"""The hello-server program. It must not know anything but its own name and defaults."""

import sys

from greeting import server
from greeting.server import Greeting, ListenPort, ServerSettings


class Settings(ServerSettings):
    """A greeter that says Hello."""

    port: ListenPort = 50051
    greeting: Greeting = "Hello"


def main() -> int:
    """Runs the program and returns its exit code."""
    return server.run("hello-server", Settings)


if __name__ == "__main__":
    sys.exit(main())
