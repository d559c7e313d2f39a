"""Every spelling of a target, and what must not resolve."""

import pytest

from xds_server.model import Port, Service, ServiceName
from xds_server.resources import names


def port(number, name="", *, is_grpc=False):
    return Port(name, number, is_grpc, ())


def resolve(name, *services, namespace="default", domain="cluster.local"):
    known = {service.name: service for service in services}
    spelling = names.parse(name, client_namespace=namespace, cluster_domain=domain)
    target = names.resolve(spelling, known.get) if spelling else None
    return target.canonical if target else None


HELLO = Service(ServiceName("default", "hello-server"), (port(50051, "grpc"),))


@pytest.mark.parametrize(
    "name",
    [
        "hello-server",
        "hello-server:50051",
        "hello-server:grpc",
        "hello-server.default",
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
        ":50051",
        "*",
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
def test_what_is_no_spelling(name):
    assert resolve(name, HELLO) is None


def test_another_cluster_domain():
    name = "hello-server.default.svc.example.org"
    assert resolve(name, HELLO, domain="example.org") == "hello-server.default:50051"


def test_a_short_name_is_looked_for_in_the_namespace_of_the_client():
    other = Service(ServiceName("team", "hello-server"), (port(1),))
    assert resolve("hello-server", HELLO, other, namespace="team") == "hello-server.team:1"
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
def test_without_a_port_the_likeliest_is_taken(ports, expected):
    found = resolve("web", Service(ServiceName("default", "web"), tuple(ports)))
    assert found == (f"web.default:{expected}" if expected else None)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("web.shop:80", (ServiceName("shop", "web"), "80")),
        ("web.shop", None),
        ("web:80", None),
        ("web.shop:grpc", None),
        ("web.shop.svc:80", None),
        ("web.shop:", None),
        ("", None),
        ("web.shop:²", None),
    ],
)
def test_canonical_names(name, expected):
    assert names.parse_canonical(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"), [("web", "me"), ("web:80", "me"), ("web.shop", ""), ("web.shop:80", "")]
)
def test_only_short_names_depend_on_the_client(name, expected):
    assert names.scope(name, "me") == expected
