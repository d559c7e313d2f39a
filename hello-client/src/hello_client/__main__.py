"""The hello-client program. It must not know anything but its own name and defaults."""

import sys

from greeting import client
from greeting.client.settings import ClientSettings, Target


class Settings(ClientSettings):
    """Calls hello-server and logs who answered."""

    target: Target = "xds:///hello-server.default:50051"


def main() -> int:
    """Runs the program and returns its exit code."""
    return client.run("hello-client", Settings)


if __name__ == "__main__":
    sys.exit(main())
