"""The settings of xds-server that need more than a type."""

from pathlib import Path

import pytest

from servicekit.errors import ConfigurationError
from servicekit.settings import read
from xds_server.settings import Settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("text", "namespaces"),
    [("", ()), (",, ", ()), ("shop", ("shop",)), (" shop,, web ,shop,", ("shop", "web"))],
)
def test_namespaces_are_listed_once_each(text: str, namespaces: tuple[str, ...]) -> None:
    assert read(Settings, {"namespaces": text}).namespaces == namespaces


def test_an_empty_address_switches_debugging_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(Settings, {}).debug_listen == "127.0.0.1:18081"
    monkeypatch.setenv("DEBUG_LISTEN", "")
    assert read(Settings, {}).debug_listen == ""


def test_the_transport() -> None:
    assert read(Settings, {}).rpc_transport == "auto"
    with pytest.raises(ConfigurationError, match=r"^--rpc-transport=fast: must be auto, events or threads$"):
        read(Settings, {"rpc_transport": "fast"})


@pytest.mark.parametrize("name", ["listen", "admin_listen", "debug_listen"])
def test_an_address_that_is_none(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"listen=foo: must be HOST:PORT"):
        read(Settings, {name: "foo"})


def test_the_admin_address_may_not_be_empty() -> None:
    with pytest.raises(ConfigurationError, match="must be HOST:PORT"):
        read(Settings, {"admin_listen": ""})


CERTIFICATE = {"tls_cert_file": "tls.crt", "tls_key_file": "tls.key"}


def test_clients_may_be_made_to_use_tls() -> None:
    settings = read(Settings, {"listen": "", **CERTIFICATE})
    assert settings.listen == ""
    assert settings.tls_listen == "[::]:18001"


def test_clients_may_be_named() -> None:
    flags = {**CERTIFICATE, "tls_client_ca_file": "ca.crt", "allowed_clients": "spiffe://a/*, spiffe://b/*"}
    assert read(Settings, flags).allowed_clients == ("spiffe://a/*", "spiffe://b/*")


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ({"listen": ""}, "set TLS_CERT_FILE and TLS_KEY_FILE"),
        ({"tls_cert_file": "tls.crt"}, "needed together"),
        ({"tls_key_file": "tls.key"}, "needed together"),
        ({"tls_client_ca_file": "ca.crt"}, "TLS_CLIENT_CA_FILE needs TLS_CERT_FILE"),
        ({**CERTIFICATE, "allowed_clients": "*"}, "ALLOWED_CLIENTS needs TLS_CLIENT_CA_FILE"),
    ],
)
def test_settings_for_tls_that_do_not_fit_together(flags: dict[str, str], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        read(Settings, flags)


def test_an_empty_folder_is_none() -> None:
    assert read(Settings, {"discovery_dir": ""}).discovery_dir is None
    with pytest.raises(ConfigurationError, match=r"^DISCOVERY=files needs DISCOVERY_DIR"):
        read(Settings, {"discovery": "files", "discovery_dir": ""})


@pytest.mark.parametrize("domain", ["cluster.local.", "Cluster.local", "", "a_b"])
def test_a_cluster_domain_that_is_none(domain: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        read(Settings, {"cluster_domain": domain})
    assert str(error.value) == (
        f"--cluster-domain={domain}: must be a DNS domain in lower case without a final dot, like cluster.local"
    )


@pytest.mark.parametrize("variable", [name.upper() for name in Settings.model_fields])
def test_every_setting_is_documented(variable: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / "your-services.md").read_text()
    table = text[text.index("\n## Settings\n") :]
    assert any(f"`{variable}`" in line.split("|")[1] for line in table.splitlines() if line.startswith("| `"))
