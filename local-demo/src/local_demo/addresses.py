"""The addresses of the programs: reading them from settings, and finding free ones."""

import socket

from servicekit import addresses, listening
from servicekit.addresses import Address
from servicekit.errors import AddressError, ConfigurationError

LOOPBACK = "127.0.0.1"


def parse(variable: str, text: str) -> Address:
    """Reads HOST:PORT from an environment variable.

    Raises:
        ConfigurationError: It is not such an address. Neither is one with port 0: the clients could not know what
            it became.
    """
    try:
        return addresses.parse(text, min_port=1)
    except ValueError as error:
        raise ConfigurationError(f"{variable}={text}: {error}") from None


def require_free(variable: str, address: Address) -> None:
    """Makes sure that a program can listen on `address`, which `variable` sets.

    Raises:
        AddressError: It cannot.
    """
    try:
        listening.open_socket(str(address)).close()
    except AddressError as error:
        raise AddressError(f"{variable}: {error}") from error


def free_port() -> int:
    """Returns a TCP port of the loopback interface that is free now, though another program may take it meanwhile."""
    with socket.create_server((LOOPBACK, 0)) as found:
        port: int = found.getsockname()[1]
        return port
