"""k8s/overlays/secure: everybody has a certificate, whoever makes it, and policies let in whom the demo needs."""

import json

import pytest

from local_demo import certificates, manifests
from local_demo.supervisor import CLIENTS as CALLS
from tests.manifests import rendering
from tests.manifests.rendering import CLIENTS, SERVERS, SERVICES
from tools import demo_secrets

USE = "overlays/secure"
WITH_CERT_MANAGER = "overlays/secure with components/cert-manager"
GREETERS = (*SERVERS, *CLIENTS)


def mounted(service: str) -> str:
    """The Secret that a service mounts at /tls."""
    deployment = rendering.of_kind("Deployment", USE)[service]
    [volume] = deployment["spec"]["template"]["spec"]["volumes"]
    [mount] = rendering.container(deployment)["volumeMounts"]
    assert (mount["name"], mount["mountPath"], mount["readOnly"]) == (volume["name"], "/tls", True)
    return str(volume["secret"]["secretName"])


def environment(service: str) -> dict[str, str]:
    variables = rendering.container(rendering.of_kind("Deployment", USE)[service])["env"]
    return {each["name"]: each["value"] for each in variables if "value" in each}


def test_everybody_mounts_a_certificate_that_the_demo_makes() -> None:
    assert {service: mounted(service) for service in SERVICES} == {
        account: f"{account}-tls" for account in demo_secrets.ACCOUNTS
    }


def test_cert_manager_makes_the_same() -> None:
    found = rendering.of_kind("Certificate", WITH_CERT_MANAGER)
    authority = found.pop("authority")
    assert authority["spec"]["isCA"]
    assert found.keys() == set(demo_secrets.ACCOUNTS)
    for account, certificate in found.items():
        spec = certificate["spec"]
        assert certificate["metadata"]["namespace"] == demo_secrets.NAMESPACE
        assert spec["secretName"] == mounted(account)
        assert spec["uris"] == [certificates.spiffe_id(account)]
        assert spec.get("dnsNames", []) == demo_secrets.NAMES.get(account, [])
        assert {"server auth", "client auth"} < set(spec["usages"])
        assert spec["issuerRef"] == {"name": "authority"}
    issuers = rendering.of_kind("Issuer", WITH_CERT_MANAGER)
    assert issuers["authority"]["spec"]["ca"]["secretName"] == authority["spec"]["secretName"]


def test_the_secrets_are_those_of_cert_manager(tmp_path, capsys) -> None:
    demo_secrets.main(tmp_path)
    first = json.loads(capsys.readouterr().out)["items"]
    assert {item["metadata"]["name"] for item in first} == {mounted(service) for service in SERVICES}
    for item in first:
        assert (item["kind"], item["type"]) == ("Secret", "kubernetes.io/tls")
        assert item["data"].keys() == {"tls.crt", "tls.key", "ca.crt"}
        assert item["metadata"]["labels"]["app.kubernetes.io/part-of"] == "proxyless-grpc-lb"
    demo_secrets.main(tmp_path)
    again = json.loads(capsys.readouterr().out)["items"]
    for before, after in zip(first, again, strict=True):
        assert before["data"]["ca.crt"] == after["data"]["ca.crt"], "the authority stays"
        assert before["data"]["tls.key"] != after["data"]["tls.key"]


def test_the_policies_are_those_of_the_demo_on_this_machine() -> None:
    found = rendering.of_kind("GRPCBackendPolicy", USE)
    wanted = {greeter.name: manifests.policy(greeter, client) for client, greeter in CALLS.items()}
    assert {name: policy["spec"] for name, policy in found.items()} == {
        name: policy["spec"] for name, policy in wanted.items()
    }


@pytest.mark.parametrize("service", GREETERS)
def test_each_has_an_account_of_its_own_and_no_token(service: str) -> None:
    spec = rendering.of_kind("Deployment", USE)[service]["spec"]["template"]["spec"]
    assert spec["serviceAccountName"] == service
    assert spec["automountServiceAccountToken"] is False
    assert rendering.of_kind("ServiceAccount", USE)[service]["automountServiceAccountToken"] is False


@pytest.mark.parametrize("service", GREETERS)
def test_each_connects_to_xds_server_with_tls(service: str) -> None:
    bootstrap = json.loads(environment(service)["GRPC_XDS_BOOTSTRAP_CONFIG"])
    [server] = bootstrap["xds_servers"]
    [credentials] = server["channel_creds"]
    assert credentials["type"] == "tls"
    [provider] = bootstrap["certificate_providers"].values()
    assert provider == {"plugin_name": "file_watcher", "config": credentials["config"]}
    host, _, port = server["server_uri"].partition(":")
    assert host in demo_secrets.NAMES["xds-server"]
    ports = rendering.of_kind("Service", USE)["xds-server"]["spec"]["ports"]
    assert int(port) in {each["port"] for each in ports}


def test_nothing_is_plaintext() -> None:
    assert environment("xds-server")["LISTEN"] == ""
    ports = rendering.of_kind("Service", USE)["xds-server"]["spec"]["ports"]
    assert {port["name"] for port in ports} == {"grpc-xds-tls", "http-admin"}
    for server in SERVERS:
        assert environment(server)["XDS_SERVER"] == "true"
        container = rendering.container(rendering.of_kind("Deployment", USE)[server])
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert str(container[probe]["grpc"]["port"]) == environment(server)["HEALTH_PORT"]
