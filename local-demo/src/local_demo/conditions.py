"""What xds-server says of routes and policies: the conditions on its pages `/debug/routes` and `/debug/policies`."""

import http.client
import json
from collections.abc import Iterator, Mapping
from typing import Any

from local_demo.objects import Identity

_PAGES = {"GRPCRoute": ("/debug/routes", "parents"), "GRPCBackendPolicy": ("/debug/policies", "ancestors")}
"""By kind: the page, and what it calls the things that an object attaches to."""
_TIMEOUT = 2.0
_BAD_IF_TRUE = frozenset({"PartiallyInvalid"})


def fetch(admin: str, wanted: Mapping[Identity, int]) -> Iterator[tuple[Identity, Mapping[str, Any]]]:
    """Asks the HTTP server at `admin` and yields what it says of those objects that it has in the wanted generation.

    Yields nothing of what cannot be had yet.
    """
    for kind, (page, _) in _PAGES.items():
        keys = {identity.key: identity for identity in wanted if identity.kind == kind}
        for entry in _get(admin, page) if keys else ():
            identity = keys.get(entry["object"])
            if identity is not None and entry["generation"] >= wanted[identity]:
                yield identity, entry


def lines(identity: Identity, entry: Mapping[str, Any]) -> list[str]:
    """Returns what to tell: the good conditions in one line, or a line for each bad one."""
    found = _conditions(identity, entry)
    if bad := [each for each in found if _is_bad(each)]:
        texts = [f"{each['type']}={each['status']} {each['reason']}: {each['message']}" for each in bad]
    else:
        texts = [", ".join(dict.fromkeys(each["type"] for each in found)) or "attaches to nothing"]
    return [f"{identity}: {text}" for text in dict.fromkeys(texts)]


def is_good(identity: Identity, entry: Mapping[str, Any]) -> bool:
    """Whether an object is used as it is."""
    return not any(map(_is_bad, _conditions(identity, entry)))


def _conditions(identity: Identity, entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [each for parent in entry[_PAGES[identity.kind][1]] for each in parent["conditions"]]


def _is_bad(condition: Mapping[str, Any]) -> bool:
    return bool(condition["status"] == (condition["type"] in _BAD_IF_TRUE))


def _get(admin: str, page: str) -> list[Any]:
    connection = http.client.HTTPConnection(admin, timeout=_TIMEOUT)
    try:
        connection.request("GET", page)
        response = connection.getresponse()
        found = json.loads(response.read()) if response.status == http.HTTPStatus.OK else []
    except (OSError, http.client.HTTPException, ValueError):
        return []
    finally:
        connection.close()
    return found if isinstance(found, list) else []
