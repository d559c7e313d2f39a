"""Who a client is, as its certificate proves.

https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md; the path is the one that Istio and cert-manager's
csi-driver-spiffe use for a Kubernetes service account.
"""

import re
from typing import NamedTuple

_SPIFFE_ID = re.compile(
    r"spiffe://(?P<domain>[a-z0-9._-]{1,255})/ns/(?P<namespace>[a-z0-9-]{1,63})/sa/(?P<account>[a-z0-9.-]{1,253})"
)


class Identity(NamedTuple):
    """A Kubernetes service account of a trust domain. Its text is its SPIFFE id."""

    trust_domain: str
    namespace: str
    account: str

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}/ns/{self.namespace}/sa/{self.account}"


def parse(text: str) -> Identity | None:
    """Reads ``spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT``; None if the text has another form."""
    match = _SPIFFE_ID.fullmatch(text)
    return Identity(match["domain"], match["namespace"], match["account"]) if match else None
