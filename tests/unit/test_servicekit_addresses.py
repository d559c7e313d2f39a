"""HOST:PORT: what is read, what is written, and what is refused."""

import pytest

from servicekit import addresses
from servicekit.addresses import Address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:18000", Address("127.0.0.1", 18000)),
        ("xds-server.default:1", Address("xds-server.default", 1)),
        ("[::]:0", Address("::", 0)),
        ("[2001:db8::1]:65535", Address("2001:db8::1", 65535)),
    ],
)
def test_an_address_is_read_and_written_alike(text: str, address: Address) -> None:
    assert addresses.parse(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "8080",
        ":50051",
        "[::]",
        "::1:0",
        "[::]:65536",
        "[::]:",
        "127.0.0.1:-1",
        "a:1:2",
        "",
        "a:1\n",
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^must be HOST:PORT, like .*, with a port between 0 and 65535$"):
        addresses.parse(text)


def test_a_port_may_have_to_be_known() -> None:
    with pytest.raises(ValueError, match="with a port between 1 and 65535"):
        addresses.parse("a:0", min_port=1)


@pytest.mark.parametrize(
    ("text", "reachable"),
    [
        ("[::]:1", "localhost:1"),
        ("0.0.0.0:1", "localhost:1"),
        ("10.0.0.1:1", "10.0.0.1:1"),
        ("[::1]:1", "[::1]:1"),
    ],
)
def test_where_a_listener_is_reached(text: str, reachable: str) -> None:
    assert str(addresses.parse(text).reachable) == reachable
