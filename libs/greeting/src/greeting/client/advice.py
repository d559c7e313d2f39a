"""How to mend the common causes of failed calls and of xDS resources that do not come.

gRPC gives most causes the status UNAVAILABLE and tells them apart in the details alone, so the words looked
for are those of gRPC's C-core. Pure; it must not know who asks.
"""

from greeting.client.bootstrap import Bootstrap

NO_SUCH_SERVICE = (
    "the xDS server knows no Service of that name and port, or is still starting: targets are written "
    "xds:///SERVICE.NAMESPACE:PORT, with the Service's port; `kubectl get services -A` lists what there is"
)
NOT_DELIVERED = "the xDS server names this resource and does not send it: look at the log of the xDS server"

_XDS_SERVER_UNREACHABLE = "xDS channel for server"
_BACKENDS_UNREACHABLE = "none of the endpoints can be reached: are the servers running and ready?"
_NO_ENDPOINTS = "the Service has no ready pod: `kubectl get pods -A` shows why"
_MENDS = {
    "Failed to create XdsClient": "gRPC cannot use the xDS bootstrap: correct it in {source}",
    _XDS_SERVER_UNREACHABLE: (
        "no xDS server answers at {xds_server}: is that its address, and is it running here or in the cluster "
        "(`kubectl get pods -l app.kubernetes.io/name=xds-server`)?"
    ),
    "connections to all backends failing": _BACKENDS_UNREACHABLE,
    "failed to connect to all addresses": _BACKENDS_UNREACHABLE,
    "invalid resource": "gRPC refuses what the xDS server sent: look at the log of the xDS server",
    "LDS resource": NO_SUCH_SERVICE,
    "does not exist": NOT_DELIVERED,
    "contains no localities": _NO_ENDPOINTS,
    "empty address list": _NO_ENDPOINTS,
}
"""By a part of the details, the most telling first: one text may have several, some of them out of date."""


def mend(details: str, bootstrap: Bootstrap | None) -> str | None:
    """Say how to mend the cause of an error, if it is a known one."""
    xds_server, source = (bootstrap.xds_server, bootstrap.source) if bootstrap else ("", "")
    for part, text in _MENDS.items():
        if part in details:
            return text.format(xds_server=xds_server, source=source)
    return None


def is_xds_server_unreachable(details: str) -> bool:
    """Tell whether a call failed because the xDS server cannot be reached."""
    return _XDS_SERVER_UNREACHABLE in details
