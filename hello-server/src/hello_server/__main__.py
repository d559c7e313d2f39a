"""The hello-server program. It must not know anything but its own name and defaults."""

import sys

from greeting import server
from greeting.server import Greeting, ListenPort, ServerSettings


class Settings(ServerSettings):
    """A greeter that says Hello."""

    port: ListenPort = 50051
    greeting: Greeting = "Hello"


def main() -> int:
    """Run the program and return its exit code."""
    return server.run(Settings, program="hello-server", arguments=sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
