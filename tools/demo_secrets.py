"""Prints Secrets with certificates for the secured demo on Kubernetes, in the shape that cert-manager writes.

``demo_secrets.py FOLDER`` keeps the authority in FOLDER, so that running it again renews all certificates.
"""

import base64
import json
import sys
from pathlib import Path

from local_demo import certificates

NAMESPACE = "default"
XDS_SERVER = "xds-server"
ACCOUNTS = (XDS_SERVER, "hello-server", "howdy-server", "hello-client", "howdy-client")
NAMES = {XDS_SERVER: [XDS_SERVER, f"{XDS_SERVER}.{NAMESPACE}", f"{XDS_SERVER}.{NAMESPACE}.svc"]}


def main(folder: Path) -> None:
    """Issues the certificates and prints the Secrets."""
    certificates.issue_all(folder, ACCOUNTS, NAMES)
    items = [secret(account, folder / account) for account in ACCOUNTS]
    print(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))


def secret(account: str, folder: Path) -> dict[str, object]:
    """The Secret of a service account."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {
            "name": f"{account}-tls",
            "namespace": NAMESPACE,
            "labels": {
                "app.kubernetes.io/name": account,
                "app.kubernetes.io/part-of": "proxyless-grpc-lb",
            },
        },
        "data": {
            name: base64.b64encode((folder / name).read_bytes()).decode() for name in certificates.FILES
        },
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
