"""Traffic objects, from the YAML that users write."""

import random

import yaml

from tests.support.objects import Object

HELLO_SERVER = "hello-server"


def route(
    rules: str, *, name: str = HELLO_SERVER, namespace: str = "default", parent: str = HELLO_SERVER
) -> Object:
    """Returns a GRPCRoute of a Service of namespace default, from the YAML of its rules."""
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GRPCRoute",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": parent, "namespace": "default"}],
            "rules": yaml.safe_load(rules),
        },
    }


def policy(spec: str, *, name: str = HELLO_SERVER, target: Object | None = None) -> Object:
    """Returns a GRPCBackendPolicy from the YAML of its spec; its target is the Service of its name by default."""
    targets = [target or {"group": "", "kind": "Service", "name": name}]
    return {
        "apiVersion": "proxyless-grpc-lb.dev/v1alpha1",
        "kind": "GRPCBackendPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"targetRefs": targets, **yaml.safe_load(spec)},
    }


def of_route(name: str, rule: str | None = None) -> Object:
    """Returns a target of a policy: a GRPCRoute, or a rule of it by its name."""
    target = {"group": "gateway.networking.k8s.io", "kind": "GRPCRoute", "name": name}
    return target | ({"sectionName": rule} if rule else {})


def harmless_spec(chance: random.Random, *, outlier_detection: bool = True) -> str:
    """Returns the YAML of a random policy that makes no call fail; empty if it says nothing."""
    balancing = (
        "{type: RoundRobin}",
        "{type: RingHash, ringHash: {header: x-client, minimumRingSize: 64}}",
        "{type: WeightedRoundRobin}",
    )
    fields = (
        f"timeout: {chance.randint(10, 30)}s",
        f"retry: {{codes: [UNAVAILABLE], attempts: {chance.randint(1, 4)}, backoff: 25ms}}",
        f"maxConcurrentRequests: {chance.randint(100, 1000)}",
        "outlierDetection: {interval: 1s, failurePercentage: {threshold: 85}, successRate: {stdevFactor: 1900}}",
        "fault: {delay: {duration: 10ms, percent: 10}}",
        f"loadBalancing: {chance.choice(balancing)}",
    )
    chosen = [field for field in fields if chance.random() < 0.5]
    return "\n".join(field for field in chosen if outlier_detection or not field.startswith("outlier"))
