"""The bootstrap of a gRPC client: where its xDS server is, and who the client is. Pure.

https://github.com/grpc/proposal/blob/master/A27-xds-global-load-balancing.md#xdsclient-and-bootstrap-file
"""

from typing import Any

POD_NAME, POD_NAMESPACE, POD_ZONE, NODE_NAME = (
    "$(POD_NAME)",
    "$(POD_NAMESPACE)",
    "$(POD_ZONE)",
    "$(NODE_NAME)",
)
"""Variables that Kubernetes expands where a container declares them before."""


def bootstrap(  # noqa: PLR0913 - each is one thing
    *, server: str, node_id: str, namespace: str, zone: str, node: str, certificates: str = ""
) -> dict[str, Any]:
    """Returns the bootstrap.

    Args:
        server: HOST:PORT of the xDS server.
        node_id: Names the client to people.
        namespace: Of the client.
        zone: Of the client; empty if unknown.
        node: The Kubernetes node of the client; empty if unknown.
        certificates: The folder with the client's certificate (tls.crt, tls.key) and the authority of the server (ca.crt);
            empty: without TLS.
    """
    credentials: dict[str, Any] = {"type": "insecure"}
    if certificates:
        files = {
            "ca_certificate_file": f"{certificates}/ca.crt",
            "certificate_file": f"{certificates}/tls.crt",
            "private_key_file": f"{certificates}/tls.key",
        }
        credentials = {"type": "tls", "config": files}
    return {
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
            "metadata": {"NAMESPACE": namespace, **({"NODE_NAME": node} if node else {})},
            # It may be empty, but not missing: grpc-js refuses a bootstrap without it.
            "locality": {"zone": zone} if zone else {},
        },
    }
