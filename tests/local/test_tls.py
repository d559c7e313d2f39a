"""Clients that connect with TLS: who may, what their certificates say about them, and certificates that are renewed."""

import datetime as dt
import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from prometheus_client.parser import text_string_to_metric_families

from local_demo.certificates import Authority, Pair
from tests.support import objects, running
from tests.support.ads import AdsClient
from tests.support.waiting import wait_until
from tests.support.xds_server import XdsServer

WEB = "web.shop:50051"
SHOP = "spiffe://cluster.local/ns/shop/sa/checkout"
BANK = "spiffe://cluster.local/ns/bank/sa/teller"
HOUR = dt.timedelta(hours=1)


class Secured:
    """A server that clients reach with TLS, and with plaintext too."""

    def __init__(self, folder: Path, stack: ExitStack, **settings: str) -> None:
        self.authority = Authority()
        self.files = folder / "tls"
        self.authority.issue(names=["localhost"]).write(self.files, self.authority)
        self.address = f"127.0.0.1:{running.free_port()}"
        (folder / "objects").mkdir()
        objects.write(
            folder / "objects/web.yaml",
            objects.service("web", namespace="shop"),
            objects.endpoint_slice(
                "web-1", "web", namespace="shop", **objects.endpoints("127.0.0.1", port=4711)
            ),
        )
        self.settings = {
            "TLS_LISTEN": self.address,
            "TLS_CERT_FILE": str(self.files / "tls.crt"),
            "TLS_KEY_FILE": str(self.files / "tls.key"),
            "TLS_CLIENT_CA_FILE": str(self.files / "ca.crt"),
            **settings,
        }
        self.server = stack.enter_context(XdsServer(folder / "objects", **self.settings))
        self.server.wait_until_ready()

    def credentials(self, pair: Pair | None) -> grpc.ChannelCredentials:
        """The credentials of a client that trusts the server."""
        key, certificate = (pair.key, pair.certificate) if pair else (None, None)
        return grpc.ssl_channel_credentials(self.authority.certificate, key, certificate)

    def connect(self, pair: Pair | None, *, namespace: str = "") -> AdsClient:
        """Connects with a certificate."""
        return AdsClient(self.address, namespace=namespace, credentials=self.credentials(pair))

    def error(self, credentials: grpc.ChannelCredentials) -> str:
        """The error of a call that can't be made."""
        with grpc.secure_channel(self.address, credentials) as channel:
            return _error(channel)


def _error(channel: grpc.Channel) -> str:
    call: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
    with pytest.raises(grpc.RpcError) as error:
        call(b"", timeout=10)
    return f"{error.value.code().name}: {error.value.details()}"


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Secured]:
    with ExitStack() as stack:
        yield Secured(tmp_path, stack)


def test_a_client_is_who_its_certificate_says(secured: Secured) -> None:
    shop, bank = (secured.authority.issue(spiffe_ids=[spiffe_id]) for spiffe_id in (SHOP, BANK))
    # A short name is one in the client's namespace: only the certificate tells the namespace here.
    with secured.connect(shop) as client:
        client.ask(Listener, "web:50051")
        client.ask(ClusterLoadAssignment, WEB)
        assert client.addresses(WEB) == ["127.0.0.1:4711"]
    with secured.connect(shop, namespace="shop") as client:
        client.ask(Listener, "web:50051")
    with secured.connect(bank) as client:
        client.subscribe(Listener, "web:50051")
        wait_until(
            "the server to miss web in bank",
            lambda: any("do not exist" in line and "bank" in line for line in secured.server.lines),
        )
        assert not client.held


def test_a_client_that_claims_another_namespace_is_refused(secured: Secured) -> None:
    bank = secured.authority.issue(spiffe_ids=[BANK])
    with secured.connect(bank, namespace="shop") as client:
        client.subscribe(Listener, "web:50051")
        error = client.wait_for_end()
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "claims the namespace shop" in str(error.details())
    assert BANK in str(error.details())
    assert "NAMESPACE" in str(error.details())
    [warning] = wait_until("the line", lambda: secured.server.warnings("claims the namespace shop"))
    assert warning["level"] == "warning"


@pytest.mark.parametrize(
    "spiffe_ids",
    [
        [],
        ["spiffe://elsewhere/ns/shop/sa/checkout"],
        ["spiffe://cluster.local/shop"],
        [SHOP, BANK],
        [SHOP, "https://example.com/bank"],
        [f"{SHOP}\0/ns/bank/sa/teller"],
    ],
    ids=["none", "another trust domain", "another form", "two", "another URI beside it", "a NUL"],
)
def test_a_certificate_without_a_usable_identity_is_refused(secured: Secured, spiffe_ids: list[str]) -> None:
    pair = secured.authority.issue(names=["checkout"], spiffe_ids=spiffe_ids)
    with secured.connect(pair) as client:
        client.subscribe(Listener, WEB)
        error = client.wait_for_end()
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "spiffe://cluster.local/ns/NAMESPACE/sa/ACCOUNT" in str(error.details())
    wait_until("the line", lambda: secured.server.warnings("stream refused", "SPIFFE id"))


def test_only_allowed_clients_may_connect(tmp_path: Path) -> None:
    with ExitStack() as stack:
        secured = Secured(tmp_path, stack, ALLOWED_CLIENTS="spiffe://cluster.local/ns/shop/sa/*")
        with secured.connect(secured.authority.issue(spiffe_ids=[SHOP])) as client:
            client.ask(Listener, WEB)
        with secured.connect(secured.authority.issue(spiffe_ids=[BANK])) as client:
            client.subscribe(Listener, WEB)
            error = client.wait_for_end()
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        assert "ALLOWED_CLIENTS" in str(error.details())


def test_certificates_that_prove_nothing_are_refused(secured: Secured) -> None:
    other = Authority("other")
    pairs = {
        "PEER_DID_NOT_RETURN_A_CERTIFICATE": None,
        "unable to get local issuer certificate": other.issue(spiffe_ids=[SHOP]),
        "certificate has expired": secured.authority.issue(spiffe_ids=[SHOP], end=-HOUR / 2),
        "certificate is not yet valid": secured.authority.issue(spiffe_ids=[SHOP], begin=HOUR / 2),
    }
    for reason, pair in pairs.items():
        assert secured.error(secured.credentials(pair)).startswith("UNAVAILABLE"), reason
        secured.server.wait_for_line("Handshake failed", reason)
    with secured.connect(secured.authority.issue(spiffe_ids=[SHOP])) as client:
        client.ask(Listener, WEB)


def test_clients_refuse_a_server_that_they_do_not_trust(secured: Secured) -> None:
    untrusting = grpc.ssl_channel_credentials(Authority("other").certificate)
    assert "CERTIFICATE_VERIFY_FAILED" in secured.error(untrusting)


def test_plaintext_and_tls_do_not_mix(secured: Secured) -> None:
    with grpc.insecure_channel(secured.address) as channel:
        assert _error(channel).startswith("UNAVAILABLE")
    secured.server.wait_for_line("Handshake failed", "WRONG_VERSION_NUMBER")
    secured.address = secured.server.address
    assert secured.error(secured.credentials(None)).startswith("UNAVAILABLE")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_versions_of_tls_are_refused(secured: Secured) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    host, _, port = secured.address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        context.wrap_socket(plain)


def test_connections_that_begin_no_handshake_disturb_nobody(secured: Secured) -> None:
    host, _, port = secured.address.rpartition(":")
    with ExitStack() as stack:
        idle = [
            stack.enter_context(socket.create_connection((host, int(port)), timeout=30)) for _ in range(1_000)
        ]
        with secured.connect(secured.authority.issue(spiffe_ids=[SHOP])) as client:
            client.ask(Listener, WEB)
        # The server closes them by itself.
        assert idle[0].recv(1) == b""


def test_without_authorities_for_clients_anybody_may_connect_and_say_who_it_is(tmp_path: Path) -> None:
    with ExitStack() as stack:
        secured = Secured(tmp_path, stack, TLS_CLIENT_CA_FILE="")
        with secured.connect(None, namespace="shop") as client:
            client.ask(Listener, "web:50051")


def test_there_may_be_no_plaintext_port(tmp_path: Path) -> None:
    with ExitStack() as stack:
        secured = Secured(tmp_path, stack, LISTEN="")
        assert secured.server.get("/livez")[0] == 200
        with secured.connect(secured.authority.issue(spiffe_ids=[SHOP])) as client:
            client.ask(Listener, WEB)
        [listening] = [record for record in secured.server.records if record["event"] == "listening"]
        assert listening["listen"] is None
        assert listening["tls_listen"] == secured.address


# ---- renewal ----


def test_a_renewed_certificate_is_used_and_open_streams_stay(secured: Secured) -> None:
    pair = secured.authority.issue(spiffe_ids=[SHOP])
    with secured.connect(pair) as before:
        before.ask(Listener, WEB)
        renewed = secured.authority.issue(names=["localhost"], end=48 * HOUR)
        first = expiry(secured.server)
        renewed.write(secured.files, secured.authority)
        wait_until("the metric to follow", lambda: expiry(secured.server) != first)
        assert presented(secured) == ssl.PEM_cert_to_DER_cert(renewed.certificate.decode())
        before.ask(ClusterLoadAssignment, WEB)
        assert before.error is None


def test_a_renewed_certificate_is_used_from_when_it_is_valid(secured: Secured) -> None:
    soon = dt.timedelta(seconds=5)
    secured.authority.issue(names=["localhost"], begin=soon, end=48 * HOUR).write(
        secured.files, secured.authority
    )
    first = expiry(secured.server)
    assert "is not valid before" in secured.server.get("/debug/services")[1]
    wait_until("the certificate to be used", lambda: expiry(secured.server) != first)
    [_] = wait_until("the line", lambda: secured.server.warnings("a renewed certificate can't be used"))


def test_authorities_of_clients_are_renewed_too(secured: Secured) -> None:
    old, new = secured.authority, Authority("new")
    server = old.issue(names=["localhost"])
    both = Authority("both")
    both.certificate = old.certificate + new.certificate
    server.write(secured.files, both)
    for authority in (old, new):
        with secured.connect(authority.issue(spiffe_ids=[SHOP])) as client:
            client.ask(Listener, WEB)
    server.write(secured.files, new)
    assert secured.error(secured.credentials(old.issue(spiffe_ids=[SHOP]))).startswith("UNAVAILABLE")


@pytest.mark.parametrize("kind", ["rubbish", "another key", "expired", "not valid yet", "gone"])
def test_a_renewed_certificate_that_can_not_be_used_changes_nothing(secured: Secured, kind: str) -> None:
    before = presented(secured)
    pair = secured.authority.issue(names=["localhost"])
    if kind == "expired":
        secured.authority.issue(names=["localhost"], end=-HOUR / 2).write(secured.files, secured.authority)
    elif kind == "not valid yet":
        secured.authority.issue(names=["localhost"], begin=HOUR).write(secured.files, secured.authority)
    elif kind == "gone":
        (secured.files / "tls.crt").unlink()
    else:
        (secured.files / "tls.crt").write_bytes(b"rubbish" if kind == "rubbish" else pair.certificate)
    wait_until("a problem", lambda: "Certificate" in secured.server.get("/debug/services")[1])
    with secured.connect(secured.authority.issue(spiffe_ids=[SHOP])) as client:
        client.ask(Listener, WEB)
    assert presented(secured) == before
    [_] = wait_until(
        "the line", lambda: secured.server.warnings("a renewed certificate can't be used", "tls.")
    )
    pair.write(secured.files, secured.authority)
    wait_until("no problem", lambda: "Certificate" not in secured.server.get("/debug/services")[1])
    assert presented(secured) == ssl.PEM_cert_to_DER_cert(pair.certificate.decode())


@pytest.mark.parametrize("file", ["tls.crt", "tls.key", "ca.crt"])
def test_without_usable_files_it_does_not_start(tmp_path: Path, file: str) -> None:
    authority = Authority()
    authority.issue(names=["localhost"]).write(tmp_path, authority)
    (tmp_path / file).write_text("rubbish")
    env = running.environment(
        DISCOVERY="files",
        DISCOVERY_DIR=str(tmp_path),
        LISTEN="127.0.0.1:0",
        ADMIN_LISTEN="127.0.0.1:0",
        DEBUG_LISTEN="",
        TLS_LISTEN="127.0.0.1:0",
        TLS_CERT_FILE=str(tmp_path / "tls.crt"),
        TLS_KEY_FILE=str(tmp_path / "tls.key"),
        TLS_CLIENT_CA_FILE=str(tmp_path / "ca.crt"),
    )
    result = running.run("xds-server", "serve", env=env)
    assert result.returncode == 2
    [line] = result.stdout.splitlines()
    assert "TLS: " in line
    assert str(tmp_path / file) in line


def expiry(server: XdsServer) -> float:
    """When the certificate in use expires, from the metrics."""
    families = text_string_to_metric_families(server.get("/metrics")[1])
    [sample] = [
        s for family in families for s in family.samples if s.name == "tls_certificate_expiry_seconds"
    ]
    return sample.value


def presented(secured: Secured) -> bytes:
    """The certificate that the server shows to a new connection, in DER."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, _, port = secured.address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        context.wrap_socket(plain) as encrypted,
    ):
        found = encrypted.getpeercert(binary_form=True)
    assert found
    return found


# ---- a gRPC client ----


def test_a_grpc_client_with_certificate_files_is_balanced(secured: Secured, tmp_path: Path) -> None:
    secured.authority.issue(spiffe_ids=[SHOP]).write(tmp_path / "client", secured.authority)
    port = running.free_port()
    server = secured.address.replace("127.0.0.1", "localhost")
    made = running.run(
        "xds-server",
        *("bootstrap", "--server", server, "--tls", str(tmp_path / "client"), "--namespace", "shop"),
        env=running.environment(),
    )
    objects.write(
        tmp_path / "objects/web.yaml",
        objects.service("web", namespace="shop"),
        objects.endpoint_slice("web-1", "web", namespace="shop", **objects.endpoints("127.0.0.1", port=port)),
    )
    env = running.environment(PORT=str(port), HOSTNAME="web-1", POD_IP="127.0.0.1", DRAIN_DELAY="0")
    with running.Running("hello-server", env=env) as greeter:
        greeter.wait_for_line("serving")
        call = Path(__file__).parents[1] / "support" / "call.py"
        env = running.environment(GRPC_XDS_BOOTSTRAP_CONFIG=made.stdout)
        result = running.run("python", str(call), "xds:///web:50051", env=env, seconds=60)
    assert json.loads(result.stdout) == {"xds:///web:50051": "web-1"}
