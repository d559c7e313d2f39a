"""A mesh in which everybody has a certificate, and programs in each language in it."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12

from local_demo.certificates import Authority, spiffe_id
from tests.interop.client import Program
from tests.interop.conftest import build
from tests.interop.languages import LANGUAGES, Language
from tests.interop.mesh import SERVICE
from tests.support import objects, running
from tests.support.running import Running
from tests.support.xds_server import XdsServer

ALLOWED, OTHER, SERVER, XDS_SERVER = "caller", "stranger", "server", "xds-server"
PYTHON = LANGUAGES[0]
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
        self.needs_certificates = needs_certificates
        self.authority = Authority()
        self.issue(self.authority)
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

    def issue(self, *trusted: Authority) -> None:
        """Issues new certificates to everybody; each trusts the given authorities from now on."""
        for account in (XDS_SERVER, ALLOWED, OTHER, SERVER):
            names = ["localhost"] if account == XDS_SERVER else []
            pair = self.authority.issue(names=names, spiffe_ids=[spiffe_id(account)])
            pair.write(self.folder / account, *trusted)

    def bootstrap(self, language: Language, account: str, pod: str = "") -> str:
        """The bootstrap of a client or server, as far as its language can encrypt."""
        files = {
            "ca_certificate_file": str(self.folder / account / "ca.crt"),
            "certificate_file": str(self.folder / account / "tls.crt"),
            "private_key_file": str(self.folder / account / "tls.key"),
            "refresh_interval": "1s",
        }
        plain = language.name == "Node" or (language.name == "Java" and self.needs_certificates)
        credentials: dict[str, Any] = {"type": "insecure"} if plain else {"type": "tls"}
        if language.name != "Java" and not plain:
            credentials["config"] = files
        address = self.server.address if plain else self.address
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
        # Without it, grpc-js refuses the filter of an authorization, and stays closed.
        found["GRPC_XDS_EXPERIMENTAL_RBAC"] = "true"
        if language.name == "Java":
            store = self.folder / "trust.p12"
            certificate = x509.load_pem_x509_certificate(self.authority.certificate)
            trusted = pkcs12.PKCS12Certificate(certificate, b"authority")
            store.write_bytes(
                pkcs12.serialize_java_truststore(
                    [trusted], encryption_algorithm=BestAvailableEncryption(b"changeit")
                )
            )
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


def tls(*, mode: str = "Mutual", names: Sequence[str] = (spiffe_id(SERVER),)) -> dict[str, Any]:
    return {"tls": {"mode": mode, "subjectAltNames": list(names)}}


def allow(**permission: Any) -> dict[str, Any]:
    return {"authorization": {"allow": [{"principals": [spiffe_id(ALLOWED)], **permission}]}}


def secured(tmp_path: Path, stack: ExitStack, **options: bool) -> Secured:
    found = Secured(tmp_path, **options)
    stack.enter_context(found.server)
    found.server.wait_until_ready()
    return found


def program(
    mesh: Secured, stack: ExitStack, language: Language, account: str, pod: str = "", **variables: str
) -> Program:
    """Starts a program in a language."""
    if language.missing:
        pytest.skip(f"not run: {language.missing}")
    environment = {"PATH": os.environ["PATH"], **mesh.environment(language, account, pod), **variables}
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
