"""The xDS bootstrap that gRPC is going to use: where it comes from and which xDS servers it names.

gRPC reads it when the first call is made and reports its mistakes only in the errors of calls. Here the common
mistakes end the program at its start, as no call would ever work.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servicekit.errors import ConfigurationError

FILE = "GRPC_XDS_BOOTSTRAP"
INLINE = "GRPC_XDS_BOOTSTRAP_CONFIG"


@dataclass(frozen=True)
class Bootstrap:
    """What the log says of a bootstrap."""

    source: str
    """The environment variable that it comes from, with the file that this names."""
    xds_server: str
    node_id: str


def read(environment: Mapping[str, str]) -> Bootstrap:
    """Reads the bootstrap as gRPC will: from the file that one variable names, else from the other one.

    Raises:
        ConfigurationError: There is none, or gRPC could not use it.
    """
    if FILE in environment:
        source = f"{FILE}={environment[FILE]}"
        try:
            text = Path(environment[FILE]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise ConfigurationError(
                f"{source}: the xDS bootstrap cannot be read ({reason}): name a JSON file, or unset it and use {INLINE}"
            ) from error
    elif INLINE in environment:
        source, text = INLINE, environment[INLINE]
    else:
        raise ConfigurationError(
            f"xds: targets need an xDS bootstrap: set {FILE} to the name of a JSON file or {INLINE} to the JSON itself, "
            'like {"xds_servers": [{"server_uri": "xds-server:18000", "channel_creds": [{"type": "insecure"}]}]}'
        )
    return parse(source, text)


def parse(source: str, text: str) -> Bootstrap:
    """Reads a bootstrap's text, which `source` names in errors.

    Raises:
        ConfigurationError: gRPC could not use it.
    """
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigurationError(
            f"{source}: the xDS bootstrap is not JSON: {error.msg} at line {error.lineno} column {error.colno}"
        ) from error
    servers = _typed(content, dict).get("xds_servers")
    uris = [_typed(server, dict).get("server_uri") for server in _typed(servers, list)]
    if not uris or not all(isinstance(uri, str) and uri for uri in uris):
        raise ConfigurationError(
            f"{source}: the xDS bootstrap names no xDS server; give it "
            '"xds_servers": [{"server_uri": "xds-server:18000", "channel_creds": [{"type": "insecure"}]}]'
        )
    if not all(_typed(server, dict).get("channel_creds") for server in _typed(servers, list)):
        raise ConfigurationError(
            f"{source}: the xDS bootstrap does not say how to connect to {uris[0]}; "
            'give each of its xds_servers "channel_creds": [{"type": "insecure"}]'
        )
    node_id = _typed(_typed(content, dict).get("node"), dict).get("id")
    return Bootstrap(source, xds_server=", ".join(uris), node_id=str(node_id or ""))


def _typed(value: object, kind: type[Any]) -> Any:
    """Returns the value if it is of that kind, else an empty one."""
    return value if isinstance(value, kind) else kind()
