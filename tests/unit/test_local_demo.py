"""The pure parts of the local demo: objects as an API server keeps them, and what is told of their conditions."""

from typing import Any

import pytest

from local_demo import conditions, objects
from local_demo.objects import Identity

ROUTE = Identity("GRPCRoute", "default", "hello-server")


def service(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": spec}


def test_a_new_object_gets_a_namespace_an_age_and_a_generation() -> None:
    kept = objects.kept(service() | {"status": {}}, None, "2026-01-01T00:00:00Z")
    assert kept["metadata"] == {
        "name": "a",
        "namespace": "default",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "generation": 1,
    }
    assert "status" not in kept


def test_the_generation_counts_changes_and_the_age_stays() -> None:
    first = objects.kept(service(), None, "2026-01-01T00:00:00Z")
    assert objects.kept(service(), first, "2026-01-02T00:00:00Z") == first
    second = objects.kept(service(ports=[]), first, "2026-01-02T00:00:00Z")
    assert second["metadata"] == first["metadata"] | {"generation": 2}


def test_a_list_holds_objects() -> None:
    text = "{kind: List, items: [{kind: A, metadata: {name: a}}, {kind: B, metadata: {name: b}}]}"
    assert [str(objects.identity(each)) for each in objects.parse(text, "file")] == [
        "a default/a",
        "b default/b",
    ]


@pytest.mark.parametrize(
    ("image", "program"),
    [
        ("hello-server", "hello-server"),
        ("howdy-server:1.2", "howdy-server"),
        ("registry.example:5000/team/hello-client:1", "hello-client"),
        ("hello-server@sha256:00", "hello-server"),
    ],
)
def test_an_image_names_a_program(image: str, program: str) -> None:
    container = {"image": image, "env": [{"name": "PORT", "value": "1"}, {"name": "GREETING", "value": "Hi"}]}
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container]}}
    document = {"kind": "Deployment", "metadata": {"name": "a"}, "spec": {"template": template}}
    found = objects.deployment(document)
    assert found.replicas == 1
    assert found.template == objects.Template(program, {"GREETING": "Hi"}, {"a": "b"})


@pytest.mark.parametrize(
    ("selector", "labels", "selected"),
    [({"a": "1"}, {"a": "1", "b": "2"}, True), ({"a": "1"}, {"a": "2"}, False), ({}, {"a": "1"}, False)],
)
def test_a_service_selects_pods(selector: dict[str, str], labels: dict[str, str], *, selected: bool) -> None:
    assert objects.service(service(selector=selector)).selects(labels) is selected


def entry(*found: tuple[str, bool, str, str]) -> dict[str, Any]:
    names = ("type", "status", "reason", "message")
    return {"parents": [{"ref": {}, "conditions": [dict(zip(names, each, strict=True)) for each in found]}]}


def test_good_conditions_are_one_line() -> None:
    good = entry(("Accepted", True, "Accepted", ""), ("ResolvedRefs", True, "ResolvedRefs", ""))
    assert conditions.lines(ROUTE, good) == ["grpcroute default/hello-server: Accepted, ResolvedRefs"]


def test_each_bad_condition_is_a_line() -> None:
    bad = entry(
        ("Accepted", True, "Accepted", ""),
        ("ResolvedRefs", False, "BackendNotFound", "no Service shop/gone"),
        ("PartiallyInvalid", True, "UnsupportedValue", "Dropped Rule 2"),
    )
    assert conditions.lines(ROUTE, bad) == [
        "grpcroute default/hello-server: ResolvedRefs=False BackendNotFound: no Service shop/gone",
        "grpcroute default/hello-server: PartiallyInvalid=True UnsupportedValue: Dropped Rule 2",
    ]
