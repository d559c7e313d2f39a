"""Every spelling of a target, and names that must not resolve."""

import pytest

from xds_server.model.client import Client
from xds_server.model.service import Port, PortName, Service, ServiceName
from xds_server.model.tables import SERVICES
from xds_server.resources import names
from xds_server.resources.lookup import Lookup


def port(number, name="", *, is_grpc=False):
    return Port(name, number, is_grpc)


def look_up(name, *services, namespace="default", domain="cluster.local"):
    """The canonical name that a spelling resolves to, and what was read on the way."""
    lookup = Lookup({SERVICES: {service.name: service for service in services}}, Client(namespace))
    spelling = names.parse(name, cluster_domain=domain)
    found = names.resolve(spelling, lookup) if spelling else None
    return str(found) if found else None, lookup


def resolve(name, *services, **options):
    return look_up(name, *services, **options)[0]


HELLO = Service(ServiceName("default", "hello-server"), (port(50051, "grpc"),))


@pytest.mark.parametrize(
    "name",
    [
        "hello-server",
        "hello-server:50051",
        "hello-server:grpc",
        "hello-server.",
        "hello-server.:50051",
        "hello-server.default",
        "hello-server.default.",
        "hello-server.default:50051",
        "hello-server.default:grpc",
        "hello-server.default.svc",
        "hello-server.default.svc:50051",
        "hello-server.default.svc.cluster.local",
        "hello-server.default.svc.cluster.local:50051",
        "hello-server.default.svc.cluster.local.:50051",
        "hello-server-listener",
    ],
)
def test_usual_spellings(name):
    assert resolve(name, HELLO) == "hello-server.default:50051"


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        ":50051",
        "*",
        "hello-server..",
        "hello-server:50052",
        "hello-server:http",
        "hello-server.other",
        "hello-server.default.pod",
        "hello-server.default.svc.example.org",
        "hello-server.default.svc.cluster",
        "hello-server..default",
        ".hello-server",
        "hello-server.default:50051:50051",
        "hello-server.default:050051",
        "HELLO-SERVER.default",
        "-listener",
        "hello-server-listener-listener",
        "xdstp://authority/envoy.config.listener.v3.Listener/hello-server",
    ],
)
def test_other_text_does_not_resolve(name):
    assert resolve(name, HELLO) is None


def test_another_cluster_domain():
    name = "hello-server.default.svc.example.org"
    assert resolve(name, HELLO, domain="example.org") == "hello-server.default:50051"


def test_a_short_name_is_resolved_in_the_namespace_of_the_client():
    other = Service(ServiceName("team", "hello-server"), (port(1),))
    assert resolve("hello-server", HELLO, other, namespace="team") == "hello-server.team:1"
    assert resolve("hello-server.", HELLO, other, namespace="team") == "hello-server.team:1"
    assert resolve("hello-server", HELLO, other, namespace="default") == "hello-server.default:50051"
    assert resolve("hello-server.default", HELLO, other, namespace="team") == "hello-server.default:50051"


def test_an_exact_name_wins_over_the_one_of_the_article():
    exact = Service(ServiceName("default", "hello-server-listener"), (port(7),))
    assert resolve("hello-server-listener", HELLO, exact) == "hello-server-listener.default:7"


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        ([port(1, "http")], 1),
        ([port(1, "http"), port(2, "grpc")], 2),
        ([port(1, "http", is_grpc=True), port(2, "grpc")], 2),
        ([port(1, "http"), port(2, "rpc", is_grpc=True)], 2),
        ([port(1, "http"), port(2, "metrics")], None),
    ],
)
def test_without_a_port_the_most_likely_one_is_chosen(ports, expected):
    found = resolve("web", Service(ServiceName("default", "web"), tuple(ports)))
    assert found == (f"web.default:{expected}" if expected else None)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("web.shop:80", PortName(ServiceName("shop", "web"), 80)),
        ("web.shop", None),
        ("web:80", None),
        ("web.shop:grpc", None),
        ("web.shop.svc:80", None),
        ("web.shop:", None),
        ("web.shop:080", None),
        ("", None),
        ("web.shop:²", None),
    ],
)
def test_canonical_names(name, expected):
    assert names.parse_canonical(name) == expected


@pytest.mark.parametrize(
    ("name", "traits"),
    [("web", {"namespace"}), ("web:80", {"namespace"}), ("web.", {"namespace"}), ("web.shop", set())],
)
def test_only_short_names_depend_on_the_client(name, traits):
    _, lookup = look_up(name)
    assert lookup.traits == traits


def test_services_that_do_not_exist_are_recorded_too():
    _, lookup = look_up("web-listener.shop")
    assert {entry.key for entry in lookup.entries} == {
        ServiceName("shop", "web-listener"),
        ServiceName("shop", "web"),
    }
