"""The bootstrap of a gRPC client: where its xDS server is, and who the client is. Pure.

https://github.com/grpc/proposal/blob/master/A27-xds-global-load-balancing.md#xdsclient-and-bootstrap-file
"""

from typing import Any

from xds_server.model.traffic import DEFAULT_PROVIDER
from xds_server.resources.names import SERVER_PREFIX

REFRESH_INTERVAL = "60s"
"""How often clients and servers read their certificates again."""

POD_NAME, POD_NAMESPACE, POD_ZONE, NODE_NAME = (
    "$(POD_NAME)",
    "$(POD_NAMESPACE)",
    "$(POD_ZONE)",
    "$(NODE_NAME)",
)
"""Variables that Kubernetes expands where a container declares them before."""


def bootstrap(  # noqa: PLR0913 - each is one thing
    *, server: str, node_id: str, namespace: str, pod: str, zone: str, node: str, certificates: str = ""
) -> dict[str, Any]:
    """Returns the bootstrap.

    Args:
        server: HOST:PORT of the xDS server.
        node_id: Names the client to people.
        namespace: Of the client.
        pod: The name of the client's pod; empty if unknown. Servers that use xDS are known by it.
        zone: Of the client; empty if unknown.
        node: The Kubernetes node of the client; empty if unknown.
        certificates: The folder with the client's certificate (tls.crt, tls.key) and the authorities of others (ca.crt);
            empty: without TLS.
    """
    files = {
        "ca_certificate_file": f"{certificates}/ca.crt",
        "certificate_file": f"{certificates}/tls.crt",
        "private_key_file": f"{certificates}/tls.key",
    }
    credentials = {"type": "tls", "config": files} if certificates else {"type": "insecure"}
    metadata = {"NAMESPACE": namespace, "POD_NAME": pod, "NODE_NAME": node}
    made: dict[str, Any] = {
        "xds_servers": [
            {
                "server_uri": server,
                "channel_creds": [credentials],
                # A client keeps a resource that the server deletes (gRFC A53).
                "server_features": ["xds_v3", "ignore_resource_deletion"],
            }
        ],
        "node": {
            "id": node_id,
            "metadata": {name: value for name, value in metadata.items() if value},
            # It may be empty, but not missing: grpc-js refuses a bootstrap without it.
            "locality": {"zone": zone} if zone else {},
        },
    }
    made["server_listener_resource_name_template"] = f"{SERVER_PREFIX}%s"
    if certificates:
        # What policies call `default`: for connections between clients and servers.
        files = {**files, "refresh_interval": REFRESH_INTERVAL}
        made["certificate_providers"] = {DEFAULT_PROVIDER: {"plugin_name": "file_watcher", "config": files}}
    return made
