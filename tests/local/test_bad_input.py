"""Invalid objects and files: each is logged once with its reason, and everything else is served."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support import objects
from tests.support.ads import AdsClient
from tests.support.objects import Object
from tests.support.waiting import wait_until
from tests.support.xds_server import XdsServer

GOOD = "good.default:50051"
WEB = "web.default:50051"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one valid service."""
    objects.write(
        tmp_path / "good.yaml",
        objects.service("good"),
        objects.endpoint_slice("good-1", "good", **objects.endpoints("10.0.0.1", port=80)),
    )
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[XdsServer]:
    with XdsServer(folder) as server:
        server.wait_until_ready()
        yield server


@pytest.fixture
def client(server: XdsServer) -> Iterator[AdsClient]:
    """A client that is subscribed to the valid service."""
    with AdsClient(server.address) as client:
        client.walk(GOOD)
        yield client


def wait_for_addresses(client: AdsClient, name: str, *addresses: str) -> None:
    wait_until(f"{name} at {addresses}", lambda: client.addresses(name) == list(addresses))


USABLE = objects.endpoint_slice("web-ok", "web", **objects.endpoints("10.0.0.2", port=80))
ENDPOINT: Object = {"addresses": ["10.0.0.3"], "conditions": {"ready": True}}
PORTS: list[Object] = [{"name": "grpc", "port": 80, "protocol": "TCP"}]


class Unusual(NamedTuple):
    """The fields of an EndpointSlice, the reason that is logged, and which of its endpoints are served."""

    fields: Object
    reason: str | None = None
    served: Sequence[str] = ()


UNUSUAL_SLICES = {
    "ports empty": Unusual({"endpoints": [ENDPOINT], "ports": []}, "no ports"),
    "ports null": Unusual({"endpoints": [ENDPOINT], "ports": None}, "no ports"),
    "ports missing": Unusual({"endpoints": [ENDPOINT]}, "no ports"),
    "endpoints null": Unusual({"endpoints": None, "ports": PORTS}),
    "a service without pods": Unusual({"endpoints": [], "ports": None}),
    "conditions missing": Unusual(
        {"endpoints": [{"addresses": ["10.0.0.3"]}], "ports": PORTS}, served=["10.0.0.3:80"]
    ),
    "conditions null": Unusual(
        {
            "endpoints": [
                {
                    "addresses": ["10.0.0.3"],
                    "conditions": {"ready": None, "serving": None, "terminating": None},
                }
            ],
            "ports": PORTS,
        },
        served=["10.0.0.3:80"],
    ),
    "addressType FQDN": Unusual(
        {"addressType": "FQDN", "endpoints": [{"addresses": ["pod.example"]}], "ports": PORTS},
        "addressType 'FQDN'",
    ),
    "addressType unknown": Unusual(
        {"addressType": "Token", "endpoints": [ENDPOINT], "ports": PORTS}, "addressType 'Token'"
    ),
    "no IP address": Unusual(
        {"endpoints": [{"addresses": ["ten.zero"]}, ENDPOINT], "ports": PORTS},
        "'ten.zero'",
        ["10.0.0.3:80"],
    ),
    "the same address in two slices": Unusual(
        {"endpoints": [{"addresses": ["10.0.0.2"]}, ENDPOINT], "ports": PORTS},
        None,
        ["10.0.0.3:80"],
    ),
    "the same address twice in a slice": Unusual(
        {"endpoints": [ENDPOINT, ENDPOINT], "ports": PORTS},
        "10.0.0.3:80 is in the slice more than once",
        ["10.0.0.3:80"],
    ),
    "endpoints of another type": Unusual({"endpoints": "none", "ports": PORTS}, "endpoints"),
    "port of another type": Unusual(
        {"endpoints": [ENDPOINT], "ports": [{"name": "grpc", "port": "http"}]}, "port"
    ),
}


@pytest.mark.parametrize("unusual", UNUSUAL_SLICES.values(), ids=UNUSUAL_SLICES.keys())
def test_an_endpoint_slice(unusual: Unusual, folder: Path, server: XdsServer, client: AdsClient) -> None:
    objects.write(
        folder / "web.yaml",
        objects.service("web"),
        objects.endpoint_slice("web-unusual", "web", **unusual.fields),
        USABLE,
    )
    client.walk(GOOD, WEB)
    wait_for_addresses(client, WEB, "10.0.0.2:80", *unusual.served)
    assert client.addresses(GOOD) == ["10.0.0.1:80"]
    warnings = server.warnings()
    assert len(warnings) == (unusual.reason is not None)
    for line in warnings:
        assert str(unusual.reason) in line["reason"]
        assert "default/web-" in str(line), "the line names the object"

    # A later change of the service does not repeat the warning.
    more = objects.endpoint_slice("web-more", "web", **objects.endpoints("10.0.0.4", port=80))
    objects.write(folder / "more.yaml", more)
    wait_until("the next change", lambda: "10.0.0.4:80" in client.addresses(WEB))
    assert server.warnings() == warnings


def test_a_service_of_type_external_name(folder: Path, server: XdsServer, client: AdsClient) -> None:
    external = objects.service("external", type="ExternalName", externalName="example.com")
    objects.write(folder / "web.yaml", external, objects.service("web"), USABLE)
    client.walk(GOOD, WEB)
    wait_for_addresses(client, WEB, "10.0.0.2:80")
    (line,) = server.warnings()
    assert "default/external" in str(line)
    assert "ExternalName" in line["reason"]


@pytest.mark.parametrize("text", ["kind: [", "\tkind: Service", "{", "- 1\n- 2\n", "just words", "\x00\x01"])
def test_a_file_that_does_not_parse_keeps_its_last_good_objects(
    text: str, folder: Path, server: XdsServer, client: AdsClient
) -> None:
    file = folder / "web.yaml"
    objects.write(file, objects.service("web"), USABLE)
    client.walk(GOOD, WEB)

    objects.write_text(file, text)
    wait_until("a warning", lambda: server.warnings("web.yaml"))
    # Later changes are served, and the objects of the file stay.
    objects.write(
        folder / "good.yaml",
        objects.service("good"),
        objects.endpoint_slice("good-1", "good", **objects.endpoints("10.0.0.9", port=80)),
    )
    wait_for_addresses(client, GOOD, "10.0.0.9:80")
    assert client.addresses(WEB) == ["10.0.0.2:80"]
    assert len(server.warnings()) == 1

    repaired = objects.endpoint_slice("web-ok", "web", **objects.endpoints("10.0.0.5", port=80))
    objects.write(file, objects.service("web"), repaired)
    wait_for_addresses(client, WEB, "10.0.0.5:80")
    assert len(server.warnings()) == 1


def test_a_file_that_never_parsed(folder: Path) -> None:
    objects.write_text(folder / "broken.yaml", "kind: [")
    with XdsServer(folder) as server:
        server.wait_until_ready()
        with AdsClient(server.address) as client:
            client.walk(GOOD)
            assert client.addresses(GOOD) == ["10.0.0.1:80"]
        assert len(server.warnings("broken.yaml")) == 1
