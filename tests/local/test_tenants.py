"""Two tenants: what only one may see, the other gets by no name, spelling, page or tool."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.service.status.v3.csds_pb2 import ClientStatusRequest
from envoy.service.status.v3.csds_pb2_grpc import ClientStatusDiscoveryServiceStub

from local_demo.certificates import Authority, Pair, spiffe_id
from tests.support import objects, running
from tests.support.ads import AdsClient
from tests.support.waiting import wait_until
from tests.support.xds_server import XdsServer

SHOP, BANK = "shop", "bank"
HIDDEN = "127.0.0.77"
"""The address of a pod of the bank."""
OPEN = "127.0.0.66"
SPELLINGS = (
    *("vault.bank", "vault.bank:50051", "vault.bank:grpc", "vault.bank.svc", "vault.bank.svc:50051"),
    *(
        "vault.bank.svc.cluster.local",
        "vault.bank.svc.cluster.local:50051",
        "vault.bank.svc.cluster.local.:50051",
    ),
    *("vault-listener.bank", "vault:50051", "vault", "VAULT.BANK:50051", "vault.bank.:50051"),
)
CANONICAL = "vault.bank:50051"
PAGES = (
    *("/", "/services", "/services?q=vault", "/service/bank/vault", "/traffic", "/clients", "/calls"),
    *("/why?name=vault.bank:50051&namespace=bank", "/metrics", "/debug/", "/debug/services", "/debug/routes"),
    *("/debug/policies", "/debug/resources", "/debug/clients"),
    "/debug/explain?name=vault.bank:50051&namespace=bank",
)


def service(name: str, namespace: str, address: str, pod: str) -> list[objects.Object]:
    endpoints = objects.endpoints(address, port=4711)
    endpoints["endpoints"][0]["targetRef"] = {"kind": "Pod", "namespace": namespace, "name": pod}
    return [
        objects.service(name, namespace=namespace),
        objects.endpoint_slice(f"{name}-1", name, namespace=namespace, **endpoints),
    ]


class Tenants:
    """A server with TLS, and an object of each kind of each tenant."""

    def __init__(self, folder: Path, stack: ExitStack, **settings: str) -> None:
        self.authority = Authority()
        self.authority.issue(names=["localhost"]).write(folder / "tls", self.authority)
        (folder / "objects").mkdir()
        objects.write(
            folder / "objects/all.yaml",
            *service("web", SHOP, OPEN, "web-1"),
            *service("vault", BANK, HIDDEN, "vault-1"),
            policy("vault", BANK),
            consumer_route("web", SHOP, consumers=BANK, backend="vault"),
        )
        self.address = f"127.0.0.1:{running.free_port()}"
        tls = {
            "TLS_LISTEN": self.address,
            "TLS_CERT_FILE": str(folder / "tls/tls.crt"),
            "TLS_KEY_FILE": str(folder / "tls/tls.key"),
            "TLS_CLIENT_CA_FILE": str(folder / "tls/ca.crt"),
            "LISTEN": "",
        }
        self.server = stack.enter_context(XdsServer(folder / "objects", **tls, **settings))
        self.server.wait_until_ready()

    def connect(self, namespace: str) -> AdsClient:
        """Connects with the certificate of a service account of a namespace."""
        pair: Pair = self.authority.issue(spiffe_ids=[spiffe_id("client", namespace)])
        credentials = grpc.ssl_channel_credentials(self.authority.certificate, pair.key, pair.certificate)
        return AdsClient(self.address, namespace="", credentials=credentials)


def policy(name: str, namespace: str) -> objects.Object:
    return {
        "apiVersion": "proxyless-grpc-lb.dev/v1alpha1",
        "kind": "GRPCBackendPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "targetRefs": [{"group": "", "kind": "Service", "name": name}],
            "tls": {"mode": "Mutual", "subjectAltNames": [spiffe_id(name, namespace)]},
            "authorization": {"allow": [{"principals": [spiffe_id("teller", namespace)]}]},
        },
    }


def consumer_route(name: str, namespace: str, *, consumers: str, backend: str) -> objects.Object:
    """A route of consumers' own for a Service of another namespace."""
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GRPCRoute",
        "metadata": {"name": name, "namespace": consumers},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": name, "namespace": namespace}],
            "rules": [{"backendRefs": [{"name": backend, "port": 50051}]}],
        },
    }


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def seen(client: AdsClient) -> bytes:
    """Everything that a client holds."""
    return b"".join(body for held in client.held.values() for body in held.resources.values())


def test_a_namespace_that_is_not_read_is_nowhere(tmp_path: Path, stack: ExitStack) -> None:
    tenants = Tenants(tmp_path, stack, NAMESPACES=SHOP)
    for namespace in (SHOP, BANK):
        client = stack.enter_context(tenants.connect(namespace))
        client.subscribe(Listener, *SPELLINGS, "web.shop:50051")
        for kind in (RouteConfiguration, Cluster, ClusterLoadAssignment):
            client.ask_for_many(kind, "web.shop:50051", [CANONICAL])
        wait_until("the Listener", lambda client=client: client.held[Listener].resources)  # type: ignore[misc]
        assert client.held[Listener].resources.keys() == {"web.shop:50051"}
        assert OPEN.encode() in seen(client), "the client sees what it may"
        assert HIDDEN.encode() not in seen(client)
        assert b"vault" not in seen(client)
        wildcard = stack.enter_context(tenants.connect(namespace))
        wildcard.subscribe(Cluster)
        wait_until("all Clusters", lambda client=wildcard: client.held.get(Cluster))  # type: ignore[misc]
        assert not any("bank" in name for name in wildcard.held[Cluster].resources)
    for page in PAGES:
        _, text = tenants.server.get(page)
        assert HIDDEN not in text, page
        assert spiffe_id("teller", BANK) not in text, page
    with grpc.insecure_channel(tenants.server.debug) as channel:
        response = ClientStatusDiscoveryServiceStub(channel).FetchClientStatus(ClientStatusRequest())
    assert OPEN.encode() in response.SerializeToString()
    assert HIDDEN.encode() not in response.SerializeToString()


def test_a_route_of_one_tenant_is_not_the_others(tmp_path: Path, stack: ExitStack) -> None:
    """The bank sends its own calls of web elsewhere; the shop's clients see nothing of that."""
    tenants = Tenants(tmp_path, stack)
    bank, shop = (stack.enter_context(tenants.connect(namespace)) for namespace in (BANK, SHOP))
    for client in (bank, shop):
        client.ask(Listener, "web.shop:50051")
        client.ask(RouteConfiguration, "web.shop:50051")
    assert b"vault.bank:50051" in bank.held[RouteConfiguration].resources["web.shop:50051"]
    assert b"vault" not in seen(shop)


def test_how_a_server_is_to_serve_is_told_to_its_namespace_alone(tmp_path: Path, stack: ExitStack) -> None:
    """Whoever claims the pod of another tenant gets the Listener of a stranger."""
    tenants = Tenants(tmp_path, stack)
    name = "grpc/server?xds.resource.listening_address=0.0.0.0:4711"
    for namespace in (BANK, SHOP):
        client = stack.enter_context(tenants.connect(namespace))
        client.metadata = {"POD_NAME": "vault-1"}
        client.ask(Listener, name)
        is_told = spiffe_id("teller", BANK).encode() in client.held[Listener].resources[name]
        assert is_told is (namespace == BANK)


def test_a_short_name_is_one_of_the_clients_own_namespace(tmp_path: Path, stack: ExitStack) -> None:
    tenants = Tenants(tmp_path, stack)
    shop = stack.enter_context(tenants.connect(SHOP))
    shop.subscribe(Listener, "vault:50051", "web:50051")
    wait_until("the Listener", lambda: shop.held.get(Listener))
    assert shop.held[Listener].resources.keys() == {"web:50051"}
    _, text = tenants.server.get("/debug/clients")
    assert {client["namespace"] for client in json.loads(text)} == {SHOP}
