"""GRPCRoutes, as a person would write them."""

from tests.support.convert import convert


def route(
    *rules, name="canary", namespace="shop", parents=({"name": "web"},), created="", generation=1, **spec
):
    """Returns a GRPCRoute whose parents are Services unless they say something else."""
    return convert(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GRPCRoute",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "generation": generation,
                "creationTimestamp": created,
            },
            "spec": {
                "parentRefs": [{"group": "", "kind": "Service", **parent} for parent in parents],
                "rules": list(rules),
                **spec,
            },
        }
    )


def rule(*matches, to=({"name": "web", "port": 80},), **fields):
    """Returns a rule of a route."""
    return {"matches": list(matches), "backendRefs": list(to), **fields}


def method(service=None, name=None, kind=None):
    """Returns the match of a method."""
    fields = {"type": kind, "service": service, "method": name}
    return {"method": {field: value for field, value in fields.items() if value is not None}}


def header(name, value, kind=None):
    """Returns the match of one header."""
    return {"headers": [{"name": name, "value": value, **({"type": kind} if kind else {})}]}
