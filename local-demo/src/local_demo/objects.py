"""Kubernetes objects as people write them: read from YAML, and checked as far as the local demo depends on them. Pure.

What an object means to clients is xds-server's business; here count its identity, and of a Deployment and a Service what
the parts of kubelet and of the EndpointSlice controller need.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeAlias

import yaml

from servicekit.errors import ConfigurationError

Object: TypeAlias = dict[str, Any]

NAMESPACE = "default"
SERVERS = ("hello-server", "howdy-server")
CLIENTS = ("hello-client", "howdy-client")
MAX_REPLICAS = 50

DEPLOYMENT, SERVICE = "Deployment", "Service"
TRAFFIC = ("GRPCRoute", "GRPCBackendPolicy")
_KINDS = {
    ("v1", SERVICE),
    ("v1", "Node"),
    ("discovery.k8s.io/v1", "EndpointSlice"),
    ("gateway.networking.k8s.io/v1", "GRPCRoute"),
    ("proxyless-grpc-lb.dev/v1alpha1", "GRPCBackendPolicy"),
    ("apps/v1", DEPLOYMENT),
}
"""What the local demo has a use for: Deployments run here, xds-server reads the others."""
_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
"""https://kubernetes.io/docs/concepts/overview/working-with-objects/names/; without dots, so that NAMESPACE.NAME is unique."""
_DEMO_SETS = frozenset({"PORT", "POD_IP", "LOG_FORMAT", "GRPC_XDS_BOOTSTRAP", "GRPC_XDS_BOOTSTRAP_CONFIG"})
"""Variables of a container that the demo sets itself: all programs share this machine and one output."""


class Identity(NamedTuple):
    """Which object it is; the namespace of a Node is empty."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """Writes it as kubectl does."""
        return f"{self.kind.lower()} {self.key}"

    @property
    def key(self) -> str:
        """The name with its namespace, if it has one."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    @property
    def file(self) -> str:
        """The name of its file in the state directory."""
        return f"{self.kind.lower()}.{self.namespace}.{self.name}.yaml"


@dataclass(frozen=True, slots=True)
class Template:
    """What the replicas of a Deployment run; another template replaces them.

    Attributes:
        program: One of SERVERS or CLIENTS.
        environment: The container's variables with literal values, without those that the demo sets.
        labels: The pod's labels.
    """

    program: str
    environment: Mapping[str, str]
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Deployment:
    """What is read of an apps/v1 Deployment."""

    name: str
    generation: int
    replicas: int
    template: Template


@dataclass(frozen=True, slots=True)
class Service:
    """What is read of a v1 Service.

    Attributes:
        name: Its name.
        selector: The labels of its pods; a Service without selects none.
        ports: The names of its ports, which may be empty, and their application protocols.
        prefers_near: Whether `trafficDistribution` asks for endpoints near the client.
    """

    name: str
    selector: Mapping[str, str]
    ports: tuple[tuple[str, str | None], ...]
    prefers_near: bool = False

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Returns whether a pod with these labels belongs to the Service."""
        return bool(self.selector) and self.selector.items() <= labels.items()


def parse(text: str, source: str) -> list[Object]:
    """Reads the objects in the YAML or JSON text of a file, which `source` names in errors.

    Raises:
        ConfigurationError: It is malformed.
    """
    try:
        documents = list(yaml.safe_load_all(text))
    except Exception as error:  # PyYAML lets errors of any type pass, such as KeyError for `!!bool maybe`
        raise ConfigurationError(f"{source}: is not YAML: {' '.join(str(error).split())}") from error
    return [each for document in documents if document is not None for each in _flatten(document, source)]


def _flatten(document: Any, source: str) -> Iterator[Object]:
    if isinstance(document, dict) and document.get("kind") == "List":
        items = document.get("items") or []
        if not isinstance(items, list):
            raise ConfigurationError(f"{source}: items of a List must be a list, not {items!r}")
        for item in items:
            yield from _flatten(item, source)
        return
    metadata = document.get("metadata") if isinstance(document, dict) else None
    if not isinstance(metadata, dict) or not isinstance(document.get("kind"), str):
        raise ConfigurationError(
            f"{source}: is not a Kubernetes object: give it apiVersion, kind and metadata.name"
        )
    name, namespace = metadata.get("name"), metadata.get("namespace") or NAMESPACE
    for text, pattern, field in ((name, _NAME, "name"), (namespace, _NAMESPACE, "namespace")):
        if not (isinstance(text, str) and pattern.fullmatch(text)):
            raise ConfigurationError(
                f"{source}: {document['kind']}: metadata.{field} must consist of at most "
                f"{253 if field == 'name' else 63} lower-case letters, digits, '-'{' and dots' * (field == 'name')}, "
                f"not {str(text)[:100]!r}"
            )
    if not isinstance(document.get("spec", {}), dict):
        raise ConfigurationError(f"{source}: {document['kind']} {namespace}/{name}: spec must be a mapping")
    yield document


def identity(document: Object) -> Identity:
    """Returns which object it is."""
    kind, metadata = document["kind"], document["metadata"]
    return Identity(kind, "" if kind == "Node" else metadata.get("namespace") or NAMESPACE, metadata["name"])


def is_used(document: Object) -> bool:
    """Returns whether the local demo has a use for an object of its kind and version."""
    return (document.get("apiVersion"), document["kind"]) in _KINDS


def kept(new: Object, old: Object | None, time: str) -> Object:
    """Returns an object as the API server would keep it: with its age and the number of changes of its content.

    A Deployment that does not say how many replicas it wants keeps those that it has, at first 1.

    Args:
        new: As it was written.
        old: As it was kept until now, if it was.
        time: Now, as RFC 3339 writes it.
    """
    content = {key: value for key, value in new.items() if key != "status"}
    if new["kind"] == DEPLOYMENT and isinstance(new.get("spec"), dict):
        replicas = old["spec"]["replicas"] if old else 1
        content["spec"] = {"replicas": replicas} | new["spec"]
    age, generation = time, 1
    if old:
        age, generation = (old["metadata"][key] for key in ("creationTimestamp", "generation"))
    metadata = {**new["metadata"], "creationTimestamp": age, "generation": generation}
    if new["kind"] != "Node":
        metadata["namespace"] = identity(new).namespace
    content["metadata"] = metadata
    if old and content != old:
        metadata["generation"] += 1
    return content


def now() -> str:
    """Returns the time as objects have it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def deployment(document: Object) -> Deployment:
    """Reads a Deployment.

    Raises:
        ConfigurationError: It cannot run here.
    """
    found = identity(document)
    if found.namespace != NAMESPACE:
        raise ConfigurationError(f"{found}: Deployments run in the namespace {NAMESPACE} here")
    try:
        spec = document["spec"]
        template, replicas = spec["template"], spec.get("replicas", 1)
        [container] = template["spec"]["containers"]
        image = container["image"]
        program = image.rpartition("/")[2].partition("@")[0].partition(":")[0]
        variables = {
            each["name"]: each["value"]
            for each in container.get("env") or ()
            if "value" in each and each["name"] not in _DEMO_SETS
        }
        labels = dict(template["metadata"]["labels"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigurationError(
            f"{found}: must have spec.template.metadata.labels and one container with an image ({type(error).__name__}: {error})"
        ) from error
    if program not in SERVERS + CLIENTS:
        raise ConfigurationError(
            f"{found}: image {image!r} cannot run here: use {', '.join(SERVERS + CLIENTS)}, with any tag"
        )
    if type(replicas) is not int or not 0 <= replicas <= MAX_REPLICAS:
        raise ConfigurationError(
            f"{found}: spec.replicas must be a number between 0 and {MAX_REPLICAS}, not {replicas!r}"
        )
    for name, value in variables.items():
        if not isinstance(value, str):
            raise ConfigurationError(
                f"{found}: the value of the variable {name} must be text: write {json.dumps(str(value))}"
            )
    return Deployment(
        found.name, document["metadata"].get("generation", 1), replicas, Template(program, variables, labels)
    )


def service(document: Object) -> Service:
    """Reads a Service.

    Raises:
        ConfigurationError: It is malformed.
    """
    found = identity(document)
    try:
        spec = document["spec"]
        return Service(
            found.name,
            dict(spec.get("selector") or {}),
            tuple((port.get("name") or "", port.get("appProtocol")) for port in spec.get("ports") or ()),
            prefers_near=bool(spec.get("trafficDistribution")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigurationError(
            f"{found}: spec must have a selector and ports ({type(error).__name__}: {error})"
        ) from error
