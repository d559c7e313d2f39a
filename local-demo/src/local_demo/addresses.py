"""Addresses and ports: reading them from settings, and finding free ones.

It must not know which program listens where.
"""

import re
import socket
from typing import NamedTuple

from servicekit import listening
from servicekit.errors import AddressError, ConfigurationError

LOOPBACK = "127.0.0.1"
_PATTERN = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<host>[^:\[\]]+)):(?P<port>[0-9]{1,5})")
_HIGHEST_PORT = 65_535


class Address(NamedTuple):
    """A host and a port of it."""

    host: str
    port: int

    def __str__(self) -> str:
        """Write it as gRPC and URLs do: an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def reachable(self) -> "Address":
        """Where a program of this machine reaches what listens here."""
        return Address(LOOPBACK, self.port) if self.host in ("::", "0.0.0.0") else self


def parse(variable: str, text: str) -> Address:
    """Read HOST:PORT from an environment variable.

    Raises:
        ConfigurationError: it is none, or its port is 0, of which the clients would not hear what it became.
    """
    match = _PATTERN.fullmatch(text)
    if match is None or not 0 < int(match["port"]) <= _HIGHEST_PORT:
        raise ConfigurationError(
            f"{variable}={text}: must be HOST:PORT, like {LOOPBACK}:18000, with a port between 1 and {_HIGHEST_PORT}"
        )
    return Address(match["ipv6"] or match["host"], int(match["port"]))


def require_free(variable: str, address: Address) -> None:
    """Make sure that a program can listen on `address`, which `variable` sets.

    Raises:
        AddressError: it cannot.
    """
    try:
        listening.open_socket(str(address)).close()
    except AddressError as error:
        raise AddressError(f"{variable}: {error}") from error


def free_port() -> int:
    """Find a TCP port of the loopback interface that is free now, though somebody may take it meanwhile."""
    with socket.create_server((LOOPBACK, 0)) as found:
        port: int = found.getsockname()[1]
        return port
