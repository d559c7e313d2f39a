"""The xDS bootstrap: where it comes from and what is said about a broken one."""

import json
from pathlib import Path
from typing import Any

import pytest

from greeting import bootstrap
from greeting.bootstrap import FILE, INLINE, Bootstrap
from servicekit.errors import ConfigurationError


def text(**parts: Any) -> str:
    server = {"server_uri": "xds-server:18000", "channel_creds": [{"type": "insecure"}]}
    return json.dumps({"xds_servers": [server], "node": {"id": "pod-1.default"}} | parts)


def test_inline() -> None:
    found = bootstrap.read({INLINE: text()})
    assert found == Bootstrap(INLINE, xds_server="xds-server:18000", node_id="pod-1.default")


def test_the_file_wins(tmp_path: Path) -> None:
    file = tmp_path / "bootstrap.json"
    file.write_text(text(node={"id": "from-the-file"}))
    found = bootstrap.read({FILE: str(file), INLINE: "{"})
    assert found == Bootstrap(f"{FILE}={file}", xds_server="xds-server:18000", node_id="from-the-file")


def test_fallback_servers_are_named_too() -> None:
    servers = [{"server_uri": uri, "channel_creds": [{"type": "insecure"}]} for uri in ("a:1", "b:1")]
    assert bootstrap.parse("X", text(xds_servers=servers)).xds_server == "a:1, b:1"


@pytest.mark.parametrize("node", [None, {}, [], {"id": ""}])
def test_a_node_is_optional(node: Any) -> None:
    assert bootstrap.parse("X", text(node=node)).node_id == ""


def test_none() -> None:
    with pytest.raises(
        ConfigurationError, match=f"set {FILE} to the name of a JSON file or {INLINE} to the JSON"
    ):
        bootstrap.read({})


@pytest.mark.parametrize(("content", "reason"), [(None, "No such file or directory"), (b"\xff", "not UTF-8")])
def test_an_unreadable_file(content: bytes | None, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "bootstrap.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError) as error:
        bootstrap.read({FILE: str(file), INLINE: text()})
    assert str(error.value) == (
        f"{FILE}={file}: the xDS bootstrap cannot be read ({reason}): "
        f"name a JSON file, or unset it and use {INLINE}"
    )


@pytest.mark.parametrize("content", ["", "{", "{'xds_servers': []}"])
def test_what_is_not_json(content: str) -> None:
    with pytest.raises(
        ConfigurationError, match=f"^{INLINE}: the xDS bootstrap is not JSON: .* at line 1 column"
    ):
        bootstrap.read({INLINE: content})


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "1",
        "{}",
        text(xds_servers=[]),
        text(xds_servers={}),
        text(xds_servers=[{}]),
        text(xds_servers=[1]),
    ],
)
def test_no_xds_server(content: str) -> None:
    with pytest.raises(
        ConfigurationError, match=f'^{INLINE}: the xDS bootstrap names no xDS server; give it "xds_serv'
    ):
        bootstrap.read({INLINE: content})


def test_no_credentials() -> None:
    with pytest.raises(
        ConfigurationError, match=f"^{INLINE}: the xDS bootstrap does not say how to connect to a:1; "
    ):
        bootstrap.read({INLINE: text(xds_servers=[{"server_uri": "a:1"}])})
