"""HOST:PORT addresses: the one place that reads and writes them. Pure."""

import re
from typing import NamedTuple

_PATTERN = re.compile(r"(?:\[(?P<ipv6>[^\[\]]+)\]|(?P<host>[^:\[\]]+)):(?P<port>[0-9]{1,5})")
_MAX_PORT = 65_535


class Address(NamedTuple):
    """A host, by name or IP address, and a TCP port of it."""

    host: str
    port: int

    def __str__(self) -> str:
        """Writes it as gRPC and URLs do: an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def reachable(self) -> "Address":
        """Where a program on this machine reaches what listens here."""
        return Address("localhost", self.port) if self.host in ("::", "0.0.0.0") else self


def parse(text: str, *, min_port: int = 0) -> Address:
    """Reads HOST:PORT, with an IPv6 address in brackets; both parts are required.

    gRPC is less strict: it takes port 65537 for 1, and an address without a port for one with 443.

    Raises:
        ValueError: The text is not such an address; its message says what it must be.
    """
    match = _PATTERN.fullmatch(text)
    if match is None or not min_port <= int(match["port"]) <= _MAX_PORT:
        raise ValueError(
            "must be HOST:PORT, like [::]:50051 or 127.0.0.1:50051, "
            f"with a port between {min_port} and {_MAX_PORT}"
        )
    return Address(match["ipv6"] or match["host"], int(match["port"]))
