"""The howdy-server program. It must not know anything but its own name and defaults."""

import sys

from greeting import server
from greeting.server import Greeting, ListenPort, ServerSettings


class Settings(ServerSettings):
    """A greeter that says Howdy."""

    port: ListenPort = 50052
    greeting: Greeting = "Howdy"


def main() -> int:
    """Run the program and return its exit code."""
    return server.run(Settings, program="howdy-server", arguments=sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
