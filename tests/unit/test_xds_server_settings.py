"""The settings of xds-server that need more than a type."""

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


@pytest.mark.parametrize("name", ["listen", "admin_listen"])
def test_an_address_that_may_not_be_empty(name: str) -> None:
    with pytest.raises(ConfigurationError, match="must be HOST:PORT"):
        read(Settings, {name: ""})


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
