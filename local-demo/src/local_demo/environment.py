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
from servicekit.errors import ConfigurationError

Environment = Mapping[str, str]

_PROXIES = frozenset({"grpc_proxy", "https_proxy", "http_proxy"})
"""Not passed on: gRPC uses a proxy even for xds:/// targets and 127.0.0.1, and no call here leaves this machine."""

_BOOTSTRAP_FILE = "GRPC_XDS_BOOTSTRAP"
"""Not passed on: gRPC would prefer the file that it names, and so another xds-server."""


_YES, _NO = frozenset({"true", "1", "yes"}), frozenset({"", "false", "0", "no"})

REFRESH_INTERVAL = "5s"
"""How often certificates are read again: short, for people who watch."""


class Listening(NamedTuple):
    """Where xds-server listens: for xDS, for HTTP, and for CSDS unless that is off.

    Attributes:
        xds: With TLS alone, if the demo is secured.
        admin: For HTTP.
        debug: For CSDS.
        certificates: With the folder of each program's certificate; None unless the demo is secured.
    """

    xds: Address
    admin: Address
    debug: Address | None
    certificates: Path | None = None

    def certificate(self, program: str) -> Path | None:
        """The folder of a program's certificate."""
        return self.certificates / program if self.certificates else None


def listening(user: Environment, certificates: Path) -> Listening:
    """Reads where xds-server listens: by default where this machine alone reaches it; an empty DEBUG_LISTEN is off.

    Args:
        user: The user's environment.
        certificates: The folder for certificates, if the user asks for a secured demo.
    """
    debug = user.get("DEBUG_LISTEN", f"{addresses.LOOPBACK}:18081")
    secured = is_secured(user)
    variable, port = ("TLS_LISTEN", 18001) if secured else ("LISTEN", 18000)
    return Listening(
        addresses.parse(variable, user.get(variable) or f"{addresses.LOOPBACK}:{port}"),
        addresses.parse("ADMIN_LISTEN", user.get("ADMIN_LISTEN") or f"{addresses.LOOPBACK}:18080"),
        addresses.parse("DEBUG_LISTEN", debug) if debug else None,
        certificates if secured else None,
    )


def is_secured(user: Environment) -> bool:
    """Reads whether the demo is secured.

    Raises:
        ConfigurationError: SECURE is neither true nor false.
    """
    text = user.get("SECURE", "").lower()
    if text not in _YES | _NO:
        raise ConfigurationError(f"SECURE={user['SECURE']}: must be true or false")
    return text in _YES


def of_xds_server(user: Environment, where: Listening, objects: Path) -> Environment:
    """Makes the environment of xds-server, which finds the objects in the folder `objects`."""
    found = where.certificate("xds-server")
    listen = {"LISTEN": str(where.xds)}
    if found:
        listen = {
            "LISTEN": "",
            "TLS_LISTEN": str(where.xds),
            "TLS_CERT_FILE": str(found / "tls.crt"),
            "TLS_KEY_FILE": str(found / "tls.key"),
            "TLS_CLIENT_CA_FILE": str(found / "ca.crt"),
        }
    return _common(user) | {
        **listen,
        "ADMIN_LISTEN": str(where.admin),
        "DEBUG_LISTEN": str(where.debug or ""),
        "DISCOVERY": "files",
        "DISCOVERY_DIR": str(objects),
    }


class Ports(NamedTuple):
    """Where a greeter listens; in a demo that is not secured, health is where the greeter is."""

    greeter: Address
    health: Address


class Replica(NamedTuple):
    """One replica, as a pod is told who it is.

    Attributes:
        name: Its host name.
        program: Which program it runs.
        zone: Where it runs.
    """

    name: str
    program: str
    zone: str


def of_server(
    user: Environment, own: Environment, replica: Replica, where: Listening, ports: Ports
) -> Environment:
    """Makes the environment of one replica of a greeter; in a secured demo it asks xds-server how to serve."""
    secured = {"XDS_SERVER": "true", "HEALTH_PORT": str(ports.health.port), **_bootstrap(replica, where)}
    return {
        **_common(user),
        "HOSTNAME": replica.name,
        **own,
        "POD_IP": ports.greeter.host,
        "PORT": str(ports.greeter.port),
        **(secured if where.certificates else {}),
    }


def of_client(user: Environment, own: Environment, replica: Replica, where: Listening) -> Environment:
    """Makes the environment of a client, with its bootstrap."""
    return {**_common(user), **own, **_bootstrap(replica, where)}


def _bootstrap(replica: Replica, where: Listening) -> Environment:
    """The bootstrap of a client or server: k8s/components/xds-client has the same for a pod."""
    credentials: dict[str, object] = {"type": "insecure"}
    providers = {}
    if folder := where.certificate(replica.program):
        files = {
            "ca_certificate_file": str(folder / "ca.crt"),
            "certificate_file": str(folder / "tls.crt"),
            "private_key_file": str(folder / "tls.key"),
            "refresh_interval": REFRESH_INTERVAL,
        }
        credentials = {"type": "tls", "config": files}
        providers = {"certificate_providers": {"default": {"plugin_name": "file_watcher", "config": files}}}
    bootstrap = {
        "xds_servers": [
            {
                "server_uri": str(where.xds.reachable),
                "channel_creds": [credentials],
                "server_features": ["xds_v3", "ignore_resource_deletion"],
            }
        ],
        "node": {
            "id": f"{replica.name}.default",
            "metadata": {"NAMESPACE": "default", "POD_NAME": replica.name},
            "locality": {"zone": replica.zone},
        },
        "server_listener_resource_name_template": "grpc/server?xds.resource.listening_address=%s",
        **providers,
    }
    return {"GRPC_XDS_BOOTSTRAP_CONFIG": json.dumps(bootstrap)}


def _common(user: Environment) -> dict[str, str]:
    return {
        **{name: value for name, value in user.items() if name not in {*_PROXIES, _BOOTSTRAP_FILE}},
        "LOG_FORMAT": user.get("LOG_FORMAT") or "text",
        # Without this Python buffers what it writes to a pipe.
        "PYTHONUNBUFFERED": "1",
    }
