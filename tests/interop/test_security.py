"""Encryption and authorization in each language: towards xds-server, and between clients and servers."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs12

from local_demo.certificates import Authority, spiffe_id
from tests.interop import envoy
from tests.interop.client import Client, Program, call_until
from tests.interop.conftest import Note, build
from tests.interop.languages import LANGUAGES, Language
from tests.interop.mesh import SERVICE, TARGET
from tests.support import objects, running
from tests.support.running import Running
from tests.support.xds_server import XdsServer

ALLOWED, OTHER, SERVER, XDS_SERVER = "caller", "stranger", "server", "xds-server"
BY_NAME = {language.name: language for language in (*LANGUAGES, envoy.ENVOY)}
PYTHON = BY_NAME["Python"]
POLICY = {
    "apiVersion": "proxyless-grpc-lb.dev/v1alpha1",
    "kind": "GRPCBackendPolicy",
}


class Secured:
    """An xds-server with TLS alone, whose clients and servers have certificates.

    Args:
        folder: For all files.
        needs_certificates: Whether clients of xds-server need a certificate.
        has_plaintext: Whether clients may do without TLS, too.
    """

    def __init__(self, folder: Path, *, needs_certificates: bool = True, has_plaintext: bool = False) -> None:
        self.folder = folder
        self.authority = Authority()
        self.authority.issue(names=["localhost"], spiffe_ids=[spiffe_id(XDS_SERVER)]).write(
            folder / XDS_SERVER, self.authority
        )
        for account in (ALLOWED, OTHER, SERVER):
            self.authority.issue(spiffe_ids=[spiffe_id(account)]).write(folder / account, self.authority)
        (folder / "objects").mkdir()
        self.address = f"127.0.0.1:{running.free_port()}"
        own = folder / XDS_SERVER
        settings = {
            "TLS_LISTEN": self.address,
            "TLS_CERT_FILE": str(own / "tls.crt"),
            "TLS_KEY_FILE": str(own / "tls.key"),
            **({"TLS_CLIENT_CA_FILE": str(own / "ca.crt")} if needs_certificates else {}),
            **({} if has_plaintext else {"LISTEN": ""}),
        }
        self.server = XdsServer(folder / "objects", GRPC_VERBOSITY="NONE", **settings)
        self.servers: dict[str, int] = {}

    def bootstrap(self, language: Language, account: str, pod: str = "") -> str:
        """The bootstrap of a client or server, as far as its language can encrypt."""
        files = {
            "ca_certificate_file": str(self.folder / account / "ca.crt"),
            "certificate_file": str(self.folder / account / "tls.crt"),
            "private_key_file": str(self.folder / account / "tls.key"),
            "refresh_interval": "1s",
        }
        credentials = {
            "Java": {"type": "tls"},
            "Node": {"type": "insecure"},
        }.get(language.name, {"type": "tls", "config": files})
        address = self.server.address if language.name == "Node" else self.address
        return json.dumps(
            {
                "xds_servers": [
                    {
                        "server_uri": address,
                        "channel_creds": [credentials],
                        "server_features": ["xds_v3", "ignore_resource_deletion"],
                    }
                ],
                "node": {
                    "id": f"{pod or account}.default",
                    "metadata": {"NAMESPACE": "default", "POD_NAME": pod},
                    "locality": {},
                },
                "server_listener_resource_name_template": "grpc/server?xds.resource.listening_address=%s",
                "certificate_providers": {"default": {"plugin_name": "file_watcher", "config": files}},
            }
        )

    def environment(self, language: Language, account: str, pod: str = "") -> dict[str, str]:
        """The environment of a client or server."""
        found = running.environment(GRPC_XDS_BOOTSTRAP_CONFIG=self.bootstrap(language, account, pod))
        if language.name == "Java":
            store = self.folder / "trust.p12"
            certificate = x509.load_pem_x509_certificate(self.authority.certificate)
            trusted = pkcs12.PKCS12Certificate(certificate, b"authority")
            store.write_bytes(pkcs12.serialize_java_truststore([trusted], encryption_algorithm=_password()))
            found["JAVA_TOOL_OPTIONS"] = (
                f"-Djavax.net.ssl.trustStore={store} -Djavax.net.ssl.trustStorePassword=changeit"
            )
        return found

    def serve(self, **policies: Mapping[str, Any]) -> None:
        """Writes Services of the same servers, by name with _ for -, each with its policy, in one change."""
        found: list[Any] = []
        for service, policy in policies.items():
            name = service.replace("_", "-")
            found.append(objects.service(name))
            for server, port in self.servers.items():
                fields: dict[str, Any] = objects.endpoints("127.0.0.1", port=port)
                target = {"kind": "Pod", "namespace": "default", "name": server}
                fields["endpoints"][0]["targetRef"] = target
                found.append(objects.endpoint_slice(f"{name}-{server}", name, **fields))
            if policy:
                metadata = {"name": name, "namespace": "default"}
                targets = [{"group": "", "kind": "Service", "name": name}]
                found.append({**POLICY, "metadata": metadata, "spec": {"targetRefs": targets, **policy}})
        objects.write(self.folder / "objects" / "all.yaml", *found)


def _password() -> Any:
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption  # noqa: PLC0415

    return BestAvailableEncryption(b"changeit")


def tls(*, mode: str = "Mutual", names: Sequence[str] = (spiffe_id(SERVER),)) -> dict[str, Any]:
    return {"tls": {"mode": mode, "subjectAltNames": list(names)}}


def allow(**permission: Any) -> dict[str, Any]:
    return {"authorization": {"allow": [{"principals": [spiffe_id(ALLOWED)], **permission}]}}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def secured(tmp_path: Path, stack: ExitStack, **options: bool) -> Secured:
    found = Secured(tmp_path, **options)
    stack.enter_context(found.server)
    found.server.wait_until_ready()
    return found


def program(mesh: Secured, stack: ExitStack, language: Language, account: str, pod: str = "") -> Program:
    """Starts a program in a language."""
    if language.missing:
        pytest.skip(f"not run: {language.missing}")
    environment = {"PATH": os.environ["PATH"], **mesh.environment(language, account, pod)}
    return stack.enter_context(Program(build(language), environment))


def greeter(mesh: Secured, stack: ExitStack, name: str) -> Running:
    """Starts a hello-server that asks xds-server how to serve. Its EndpointSlice has to be there already."""
    settings = {
        "PORT": str(mesh.servers[name]),
        "HEALTH_PORT": str(running.free_port()),
        "HOSTNAME": name,
        "POD_IP": "127.0.0.1",
        "XDS_SERVER": "true",
        "DRAIN_DELAY": "0",
    }
    environment = mesh.environment(PYTHON, SERVER, name)
    started = stack.enter_context(Running(SERVICE, env=environment | settings | {"LOG_FORMAT": "json"}))
    started.wait_for_line('"serving"')
    return started


def greeters(mesh: Secured, stack: ExitStack, **policies: Mapping[str, Any]) -> None:
    """Starts two hello-servers behind Services with these policies."""
    mesh.servers = {name: running.free_port() for name in ("hello-1", "hello-2")}
    mesh.serve(**policies)
    for name in mesh.servers:
        greeter(mesh, stack, name)


def can_do_without(language: str) -> dict[str, bool]:
    """What xds-server has to allow for a language."""
    return {"needs_certificates": language != "Java", "has_plaintext": language == "Node"}


@pytest.mark.parametrize("start", [*BY_NAME])
def test_towards_xds_server(tmp_path: Path, stack: ExitStack, start: str, note: Note) -> None:
    """Towards `xds-server`"""
    if start == "Node":
        note("plaintext: grpc-js refuses `tls` in its bootstrap")
    elif start == "Java":
        note("TLS, without a certificate of its own")
    else:
        note("mutual TLS")
    mesh = secured(tmp_path, stack, **can_do_without(start))
    greeters(mesh, stack, hello_server={})
    client: Client
    if start == "Envoy":
        command = build(envoy.ENVOY)
        client = stack.enter_context(envoy.Envoy(command, mesh.address, "envoy", tmp_path / ALLOWED))
    else:
        client = program(mesh, stack, BY_NAME[start], ALLOWED)
    client.open("a", TARGET)
    call_until(client, "a", "both servers", lambda replies: set(replies.hosts) == set(mesh.servers))


@pytest.mark.parametrize("mode", ["Simple", "Mutual"])
@pytest.mark.parametrize("start", [language.name for language in LANGUAGES])
def test_clients_encrypt(tmp_path: Path, stack: ExitStack, start: str, mode: str, note: Note) -> None:
    """Clients: `tls`, to servers in Python; another name in the server's certificate is refused"""
    mesh = secured(tmp_path, stack, **can_do_without(start))
    greeters(
        mesh, stack, hello_server=tls(mode=mode), wrong=tls(mode=mode, names=["another.name", "hello-server"])
    )
    client = program(mesh, stack, BY_NAME[start], ALLOWED)
    client.open("a", TARGET)
    replies = client.call("a", 20)
    assert replies.failures == []
    assert set(replies.hosts) == set(mesh.servers)
    client.open("b", TARGET.replace(SERVICE, "wrong"))
    refused = client.call("b", 3, patient=False)
    assert [failure["code"] for failure in refused.failures] == ["UNAVAILABLE"] * 3
    note("yes")


@pytest.mark.parametrize("start", [language.name for language in LANGUAGES])
def test_servers_follow(tmp_path: Path, stack: ExitStack, start: str, note: Note) -> None:
    """Servers: `tls` Mutual and `authorization`, called by Python: allowed, another client, another method, plaintext"""
    language = BY_NAME[start]
    mesh = secured(tmp_path, stack, **can_do_without(start))
    mesh.servers = {"one": running.free_port()}
    mesh.serve(hello_server={**tls(), **allow(methods=["/greeter.v1.Greeter/SayHello"])})
    if start == "Python":
        greeter(mesh, stack, "one")
    else:
        program(mesh, stack, language, SERVER, "one").serve("one", mesh.servers["one"])
    # Java's and Node's needs of xds-server are those of their clients, and Python can do with any.
    client = program(mesh, stack, PYTHON, ALLOWED)
    client.open("a", TARGET)
    call_until(client, "a", "replies", lambda replies: len(replies.hosts) == 6)
    stranger = program(mesh, stack, PYTHON, OTHER)
    stranger.open("a", TARGET)
    [failure] = stranger.call("a").failures
    assert failure["code"] == "PERMISSION_DENIED"
    direct = program(mesh, stack, PYTHON, ALLOWED)
    direct.open("a", f"127.0.0.1:{mesh.servers['one']}")
    [failure] = direct.call("a", patient=False).failures
    assert failure["code"] == "UNAVAILABLE"
    mesh.serve(hello_server={**tls(), **allow(methods=["/grpc.health.v1.Health/*"])})
    call_until(
        client,
        "a",
        "the refusal of this method",
        lambda replies: [failure["code"] for failure in replies.failures] == ["PERMISSION_DENIED"] * 3,
        times=3,
    )
    note("yes")
