"""The hello-client program: its name and its defaults."""

from servicekit import early

early.remember_signals()

import sys  # noqa: E402 - a signal during the imports must not be lost

from greeting import client  # noqa: E402
from greeting.client.settings import ClientSettings, Target  # noqa: E402


class Settings(ClientSettings):
    """Calls hello-server and logs who answered."""

    target: Target = "xds:///hello-server.default:50051"


def main() -> int:
    """Runs the program and returns its exit code."""
    return client.run("hello-client", Settings)


if __name__ == "__main__":
    sys.exit(main())
