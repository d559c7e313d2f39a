"""What xds-server says about routes and policies: statuses, how often they are written, and Events."""

import re
from dataclasses import dataclass

from tests.cluster import waiting
from tests.cluster.kube import Cluster, Object

CONTROLLER = "proxyless-grpc-lb.dev/xds-server"
ROUTES = "grpcroutes.gateway.networking.k8s.io"
POLICIES = "grpcbackendpolicies.proxyless-grpc-lb.dev"
ENTRIES = {ROUTES: "parents", POLICIES: "ancestors"}
"""The field of the status that has an entry for each parent of a route, and for each target of a policy."""


@dataclass(frozen=True)
class Condition:
    """A condition of a status."""

    holds: bool
    reason: str
    message: str


def one(cluster: Cluster, resource: str, name: str) -> Object:
    """Returns an object, with the list of the fields' managers."""
    selection = ("--field-selector", f"metadata.name={name}", "--show-managed-fields")
    [found] = cluster.get(resource, *selection)
    return found


def entries(cluster: Cluster, resource: str, name: str, controller: str = CONTROLLER) -> list[Object]:
    """Returns the entries of a controller in an object's status."""
    found: list[Object] = one(cluster, resource, name).get("status", {}).get(ENTRIES[resource], [])
    return [entry for entry in found if entry["controllerName"] == controller]


def conditions(cluster: Cluster, resource: str, name: str) -> dict[str, Condition]:
    """Waits until each of our conditions is about the object's generation, and returns those of the only entry."""

    def look() -> tuple[int, list[Object]]:
        generation: int = one(cluster, resource, name)["metadata"]["generation"]
        return generation, entries(cluster, resource, name)

    def is_settled(seen: tuple[int, list[Object]]) -> bool:
        generation, found = seen
        said = [condition for entry in found for condition in entry["conditions"]]
        return bool(said) and all(condition["observedGeneration"] == generation for condition in said)

    _, [entry] = waiting.until(f"the status of {name}", look, is_settled)
    return {
        found["type"]: Condition(found["status"] == "True", found["reason"], found["message"])
        for found in entry["conditions"]
    }


def until_condition(cluster: Cluster, resource: str, name: str, type_: str, *, holds: bool) -> Condition:
    """Waits until a condition of an object's only entry holds, or does not, and returns it."""
    found = waiting.until(
        f"{type_}={holds} of {name}",
        lambda: conditions(cluster, resource, name).get(type_),
        lambda condition: condition and condition.holds == holds,
    )
    assert found
    return found


def events(cluster: Cluster, resource: str, name: str) -> list[Object]:
    """Returns the Events about an object, and not those about an earlier one of the same name."""
    uid = one(cluster, resource, name)["metadata"]["uid"]
    return cluster.get("events", "--field-selector", f"involvedObject.uid={uid}")


def writes(cluster: Cluster, resource: str, code: str = r"\d+") -> int:
    """Returns how many requests to write a status the API server has answered, with codes that match if given."""
    plural, _, group = resource.partition(".")
    labels = f'code="{code}",.*group="{re.escape(group)}",resource="{plural}",.*subresource="status",'
    line = re.compile(rf'apiserver_request_total{{{labels}verb="(?!GET).*"}} (\S+)')
    text = cluster.kubectl("get", "--raw", "/metrics")
    return sum(int(float(match[1])) for match in map(line.match, text.splitlines()) if match)
