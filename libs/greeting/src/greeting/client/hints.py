"""Hints: what to do about the common causes of failed calls and missing xDS resources. Pure.

gRPC gives most causes the status UNAVAILABLE, and only the details tell them apart, so they are searched for
the words of gRPC's C-core.
"""

from greeting.bootstrap import Bootstrap

NO_SUCH_SERVICE = (
    "the xDS server knows no Service of that name and port, or is still starting: targets are written "
    "xds:///SERVICE.NAMESPACE:PORT, with the Service's port; `kubectl get services -A` lists what there is"
)
NOT_DELIVERED = (
    "the xDS server refers to this resource and does not send it: look at the log of the xDS server"
)

_XDS_SERVER_UNREACHABLE = "xDS channel for server"
_BACKENDS_UNREACHABLE = "none of the endpoints can be reached: are the servers running and ready?"
_NO_ENDPOINTS = "the Service has no ready pod: `kubectl get pods -A` shows why"
_HINTS = {
    "Failed to create XdsClient": "gRPC cannot use the xDS bootstrap: correct it in {source}",
    _XDS_SERVER_UNREACHABLE: (
        "no xDS server answers at {xds_server}: is that its address, and is it running here or in the cluster "
        "(`kubectl get pods -l app.kubernetes.io/name=xds-server`)?"
    ),
    "connections to all backends failing": _BACKENDS_UNREACHABLE,
    "failed to connect to all addresses": _BACKENDS_UNREACHABLE,
    "Unauthorized RPC rejected": (
        "the servers do not let this client in: spec.authorization of the GRPCBackendPolicy of the Service says whom "
        "they do, by the SPIFFE ids in certificates"
    ),
    "SANs from certificate did not match": (
        "the server's certificate has none of the names in spec.tls.subjectAltNames of the Service's GRPCBackendPolicy"
    ),
    "CERTIFICATE_VERIFY_FAILED": "the certificate is expired, or of an authority that this side does not trust",
    "invalid resource": "gRPC refuses what the xDS server sent: look at the log of the xDS server",
    "LDS resource": NO_SUCH_SERVICE,
    "does not exist": NOT_DELIVERED,
    "contains no localities": _NO_ENDPOINTS,
    "empty address list": _NO_ENDPOINTS,
}
"""By a part of the details, the most specific first: one text may have several, some of them out of date."""


def hint(details: str, bootstrap: Bootstrap | None) -> str | None:
    """Returns what to do about an error, None if its cause is not a known one."""
    xds_server, source = (bootstrap.xds_server, bootstrap.source) if bootstrap else ("", "")
    for part, text in _HINTS.items():
        if part in details:
            return text.format(xds_server=xds_server, source=source)
    return None


def is_xds_server_unreachable(details: str) -> bool:
    """Returns whether a call failed because the xDS server cannot be reached."""
    return _XDS_SERVER_UNREACHABLE in details
