"""The environment of each program: the user's own, and the variables that the demo sets. Pure.

The user's variables go to every program (`INTERVAL=0.05`, `LOG_LEVEL`, `POLL_INTERVAL`, ...), those of a Deployment to
its replicas, where they win; except those that tie the demo together: where to listen, where the endpoints are, which xds-server to ask.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from local_demo import addresses
from servicekit.addresses import Address

Environment = Mapping[str, str]

_PROXIES = frozenset({"grpc_proxy", "https_proxy", "http_proxy"})
"""Not passed on: gRPC uses a proxy even for xds:/// targets and 127.0.0.1, and no call here leaves this machine."""


class Listening(NamedTuple):
    """Where xds-server listens: for xDS, for HTTP, and for CSDS unless that is off."""

    xds: Address
    admin: Address
    debug: Address | None


def listening(user: Environment) -> Listening:
    """Reads where xds-server listens: by default where this machine alone reaches it; an empty DEBUG_LISTEN is off."""
    debug = user.get("DEBUG_LISTEN", f"{addresses.LOOPBACK}:18081")
    return Listening(
        addresses.parse("LISTEN", user.get("LISTEN") or f"{addresses.LOOPBACK}:18000"),
        addresses.parse("ADMIN_LISTEN", user.get("ADMIN_LISTEN") or f"{addresses.LOOPBACK}:18080"),
        addresses.parse("DEBUG_LISTEN", debug) if debug else None,
    )


def of_xds_server(user: Environment, where: Listening, objects: Path) -> Environment:
    """Makes the environment of xds-server, which finds the objects in the folder `objects`."""
    return _common(user) | {
        "LISTEN": str(where.xds),
        "ADMIN_LISTEN": str(where.admin),
        "DEBUG_LISTEN": str(where.debug or ""),
        "DISCOVERY": "files",
        "DISCOVERY_DIR": str(objects),
    }


def of_server(user: Environment, own: Environment, name: str, address: Address) -> Environment:
    """Makes the environment of one replica of a greeter; it gets a host name as a pod does."""
    return {
        **_common(user),
        "HOSTNAME": name,
        **own,
        "POD_IP": address.host,
        "PORT": str(address.port),
    }


def of_client(user: Environment, own: Environment, name: str, where: Listening, zone: str) -> Environment:
    """Makes the environment of a client in a zone, with its bootstrap."""
    bootstrap = {
        "xds_servers": [
            {
                "server_uri": str(where.xds.reachable),
                "channel_creds": [{"type": "insecure"}],
                "server_features": ["xds_v3", "ignore_resource_deletion"],
            }
        ],
        "node": {
            "id": f"{name}.default",
            "metadata": {"NAMESPACE": "default"},
            "locality": {"zone": zone},
        },
    }
    result = {**_common(user), **own, "GRPC_XDS_BOOTSTRAP_CONFIG": json.dumps(bootstrap)}
    # gRPC would prefer the file that this names, and so another xds-server.
    result.pop("GRPC_XDS_BOOTSTRAP", None)
    return result


def _common(user: Environment) -> dict[str, str]:
    return {
        **{name: value for name, value in user.items() if name not in _PROXIES},
        "LOG_FORMAT": user.get("LOG_FORMAT") or "text",
        # Without this Python buffers what it writes to a pipe.
        "PYTHONUNBUFFERED": "1",
    }
