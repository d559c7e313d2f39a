"""The secured demo on this machine: mutual TLS everywhere, and who is let in."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from local_demo.certificates import Authority, Pair, spiffe_id
from tests.local.demo import CLIENTS, SERVERS, Demo
from tests.support import running
from tests.support.waiting import wait_until

HOUR = timedelta(hours=1)
ROOT = Path(__file__).parents[2]


class SecuredDemo(Demo):
    """A demo with SECURE=true."""

    def __init__(self, directory: Path) -> None:
        self.address = f"127.0.0.1:{running.free_port()}"
        super().__init__(directory, SECURE="true", TLS_LISTEN=self.address)

    @property
    def authority(self) -> Authority:
        """The authority of the demo."""
        folder = self.directory / "certificates/authority"
        return Authority(pair=Pair((folder / "tls.crt").read_bytes(), (folder / "tls.key").read_bytes()))

    def port_of(self, replica: str) -> int:
        """Where a replica serves."""
        return next(int(record["port"]) for record in self.log(replica) if record["event"] == "serving")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredDemo]:
    with SecuredDemo(tmp_path_factory.mktemp("demo") / "state") as demo:
        demo.wait_until_up()
        yield demo


@pytest.fixture
def stranger(demo: SecuredDemo) -> Iterator[str]:
    """A client that is not allowed; the name of its process."""
    path = str(ROOT / "k8s/examples/not-allowed")
    result = demo.command("apply", path)
    assert (result.returncode, result.stderr) == (0, "")
    yield "stranger-1"
    assert demo.command("delete", path).returncode == 0


def test_requests_alternate_over_encrypted_connections(demo: SecuredDemo) -> None:
    for client, server in zip(CLIENTS, SERVERS, strict=True):
        assert demo.wait_for_answers_of(client, 2) == {f"{server}-1", f"{server}-2"}
        assert not demo.failures(client)
    [listening] = [record for record in demo.log("xds-server") if record["event"] == "listening"]
    assert listening["listen"] is None, "nothing is plaintext"


def test_new_replicas_are_used(demo: SecuredDemo) -> None:
    demo.scale("hello-server", 3)
    demo.wait_for_answers_of("hello-client", 3)
    demo.scale("hello-server", 2)
    demo.wait_for_answers_of("hello-client", 2)
    assert not demo.failures("hello-client")


def test_a_client_that_is_not_allowed_is_told_so(demo: SecuredDemo, stranger: str) -> None:
    failure = wait_until("a refused call", lambda: demo.failures(stranger))[0]
    assert failure["status"] == "PERMISSION_DENIED"
    assert "spec.authorization" in failure["hint"]
    assert not demo.replies(stranger)


def test_certificates_are_renewed_and_no_call_is_lost(demo: SecuredDemo) -> None:
    before = {
        port: presented(demo, port)
        for port in (demo.port_of("hello-server-1"), demo.port_of("howdy-server-1"))
    }
    result = demo.command("renew")
    assert result.returncode == 0, result.stderr
    for port, certificate in before.items():
        wait_until("the renewed certificate", lambda port=port, old=certificate: presented(demo, port) != old)  # type: ignore[misc]
    wait_until(
        "xds-server", lambda: [r for r in demo.log("xds-server") if r["event"] == "certificate renewed"]
    )
    for client in CLIENTS:
        demo.wait_for_answers_of(client, 2)
        assert not demo.failures(client)


def test_a_server_talks_to_a_client_with_a_certificate(demo: SecuredDemo) -> None:
    """The counterpart of the refusals below."""
    assert talk(demo, demo.authority.issue(spiffe_ids=[spiffe_id("hello-client")]))


@pytest.mark.parametrize("kind", ["no certificate", "another authority", "expired", "not valid yet"])
def test_a_server_refuses_a_client(demo: SecuredDemo, kind: str) -> None:
    # With an alert, or by closing the connection.
    with suppress(ssl.SSLError, ConnectionError):
        assert talk(demo, pair_of(kind, demo.authority)) == b""


def test_a_server_refuses_plaintext(demo: SecuredDemo) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{demo.port_of('hello-server-1')}") as channel:
        call: Any = channel.unary_unary("/greeter.v1.Greeter/SayHello")
        with pytest.raises(grpc.RpcError) as refused:
            call(b"", timeout=10)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_a_server_refuses_old_tls(demo: SecuredDemo) -> None:
    context = trusting(demo)
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    pair = demo.authority.issue(spiffe_ids=[spiffe_id("hello-client")])
    with pytest.raises(ssl.SSLError, match=r"(?i)version|protocol"):
        talk(demo, pair, context)


def pair_of(kind: str, authority: Authority) -> Pair | None:
    """What a client presents."""
    allowed = [spiffe_id("hello-client")]
    match kind:
        case "another authority":
            return Authority("other").issue(spiffe_ids=allowed)
        case "expired":
            return authority.issue(spiffe_ids=allowed, begin=-2 * HOUR, end=-HOUR)
        case "not valid yet":
            return authority.issue(spiffe_ids=allowed, begin=HOUR)
    return None


def talk(demo: SecuredDemo, pair: Pair | None, context: ssl.SSLContext | None = None) -> bytes:
    """Connects to a server as it is asked directly, past xDS; returns what it says first.

    With TLS 1.3 a client learns that it is refused when it reads, not in its handshake.
    """
    found = context or trusting(demo)
    if pair is not None:
        pair.write(demo.directory.parent / "client", demo.authority)
        found.load_cert_chain(
            demo.directory.parent / "client/tls.crt", demo.directory.parent / "client/tls.key"
        )
    where = ("127.0.0.1", demo.port_of("hello-server-1"))
    with (
        socket.create_connection(where, timeout=10) as connection,
        found.wrap_socket(connection) as encrypted,
    ):
        return encrypted.recv(1)


def trusting(demo: SecuredDemo) -> ssl.SSLContext:
    """Trusts the demo's servers, whose certificates have a SPIFFE id instead of a name."""
    context = ssl.create_default_context(cafile=str(demo.directory / "certificates/hello-client/ca.crt"))
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])
    return context


def presented(demo: SecuredDemo, port: int) -> bytes | None:
    """The certificate that a greeter presents."""
    folder = demo.directory / "certificates/hello-client"
    context = trusting(demo)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    with (
        socket.create_connection(("127.0.0.1", port)) as connection,
        context.wrap_socket(connection) as encrypted,
    ):
        return encrypted.getpeercert(binary_form=True)
