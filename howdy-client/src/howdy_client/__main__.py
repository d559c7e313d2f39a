"""The howdy-client program. It must not know anything but its own name and defaults."""

import sys

from greeting import client
from greeting.client.settings import ClientSettings, Target


class Settings(ClientSettings):
    """Calls howdy-server and tells who answered."""

    target: Target = "xds:///howdy-server.default:50052"


def main() -> int:
    """Run the program and return its exit code."""
    return client.run(Settings, program="howdy-client", arguments=sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
