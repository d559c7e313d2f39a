"""Who may read the admin pages in a browser, and what a browser may do with them."""

import ipaddress
from collections.abc import Collection

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

OPEN = frozenset({"/livez", "/readyz"})
"""For probes, which are no browsers, and say nothing else."""
HEADERS = {
    # Everything comes from this server, and nothing is inline. frame-ancestors: no page of another may embed this one.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def guard(hosts: Collection[str], cluster_domain: str) -> Middleware:
    """Returns the middleware that refuses requests which a page of somebody else may have made.

    A browser sends such a page's requests to any address that its host name resolves to (DNS rebinding), so the name in
    the Host header has to be one of ours. https://github.com/brannondorsey/dns-rebind-toolkit explains the attack.

    Args:
        hosts: Names by which the server is reached, beside IP addresses, localhost and names of Kubernetes Services.
        cluster_domain: The suffix of full names of Services.
    """

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in OPEN:
            name = host_name(request.headers.get("Host", ""))
            if not is_allowed(name, hosts, cluster_domain):
                raise web.HTTPMisdirectedRequest(
                    text=f"{name[:100]} is none of this server's names; add it to ADMIN_HOSTS, or use an IP address\n"
                )
            if is_foreign(request):
                raise web.HTTPForbidden(text="requests from pages of other sites are refused\n")
        response = await handler(request)
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    return check


def host_name(host: str) -> str:
    """The name in a Host header, without the port."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
    return name.strip("[]").lower().removesuffix(".")


def is_allowed(name: str, hosts: Collection[str], cluster_domain: str) -> bool:
    """Whether a name can't be one that somebody else's DNS resolves to this server."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        # Without a dot it is no name of the public DNS; there is no top-level domain `svc`, and the cluster's is its own.
        is_service = name.endswith((".svc", f".svc.{cluster_domain}"))
        return "." not in name or name in hosts or is_service
    return True


def is_foreign(request: web.Request) -> bool:
    """Whether a page of another site made the request; following a link from there is no such request."""
    site, mode = request.headers.get("Sec-Fetch-Site", ""), request.headers.get("Sec-Fetch-Mode", "")
    if site == "cross-site" and mode != "navigate":
        return True
    origin = request.headers.get("Origin", "")
    return bool(origin) and origin.partition("://")[2] != request.headers.get("Host", "")
