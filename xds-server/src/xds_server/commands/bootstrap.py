"""``xds-server bootstrap``: the JSON for a client."""

import json
from typing import Annotated

import typer

from servicekit import addresses
from servicekit.errors import ConfigurationError
from xds_server import bootstrap as bootstraps
from xds_server.bootstrap import NODE_NAME, POD_NAME, POD_NAMESPACE, POD_ZONE
from xds_server.commands.output import Form, FormOption, show

IN_CLUSTER = "xds-server.xds-system"
PORT, TLS_PORT = 18000, 18001

EXAMPLES = """\b
Examples:
  On this machine, with a forwarded port:
    kubectl port-forward --namespace xds-system service/xds-server 18000 &
    export GRPC_XDS_BOOTSTRAP_CONFIG="$(xds-server bootstrap --server localhost:18000 --namespace shop --node-id me)"
\b
  In a Deployment, where Kubernetes expands $(POD_NAME), $(POD_NAMESPACE), $(POD_ZONE) and $(NODE_NAME):
    xds-server bootstrap --pod
\b
  With TLS, and the client's certificate mounted at /tls:
    xds-server bootstrap --pod --tls /tls
"""


def bootstrap(  # noqa: PLR0913, PLR0917 - one for each flag
    server: Annotated[
        str | None,
        typer.Option(
            help="HOST:PORT of xds-server.",
            show_default=f"{IN_CLUSTER}:{PORT}, with --tls {IN_CLUSTER}:{TLS_PORT}",
        ),
    ] = None,
    namespace: Annotated[str, typer.Option(help="The client's namespace.")] = "default",
    node_id: Annotated[str, typer.Option(help="Names the client on the page and in the log.")] = "client",
    zone: Annotated[str, typer.Option(help="The client's zone.")] = "",
    node: Annotated[str, typer.Option(help="The client's node.")] = "",
    pod: Annotated[  # noqa: FBT002 - a flag
        bool,
        typer.Option(
            "--pod",
            help="For a pod: variables of its Deployment instead of --namespace, --node-id, --zone, --node.",
        ),
    ] = False,
    tls: Annotated[
        str,
        typer.Option(
            metavar="FOLDER",
            help="With TLS: the folder, on the client, with tls.crt, tls.key and ca.crt, as a Secret of cert-manager has them.",
        ),
    ] = "",
    output: FormOption = Form.JSON,
) -> int:
    """Prints the bootstrap of a client, for GRPC_XDS_BOOTSTRAP_CONFIG or a file named by GRPC_XDS_BOOTSTRAP."""
    server = server if server is not None else f"{IN_CLUSTER}:{TLS_PORT if tls else PORT}"
    try:
        addresses.parse(server, min_port=1)
    except ValueError as error:
        raise ConfigurationError(f"--server={server}: {error}") from None
    if pod:
        namespace, zone, node = POD_NAMESPACE, POD_ZONE, NODE_NAME
        node_id = f"{POD_NAME}.{POD_NAMESPACE}"
    pod_name = POD_NAME if pod else ""
    made = bootstraps.bootstrap(
        server=server,
        node_id=node_id,
        namespace=namespace,
        pod=pod_name,
        zone=zone,
        node=node,
        certificates=tls.rstrip("/"),
    )
    show(output, made, json.dumps(made))
    return 0
