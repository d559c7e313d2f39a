"""The Taskfile: every documented task exists and has a description, and `undeploy` deletes everything."""

from typing import Any

import yaml

from tests.manifests import rendering

DOCUMENTED = {
    *("default", "setup", "local", "local:scale", "local:apply", "local:delete", "local:stop"),
    *("cluster:create", "cluster:delete", "build", "load", "deploy", "undeploy", "status", "logs", "scale"),
    *("proto", "proto:check", "lock", "lint", "test", "test:cluster"),
    *("test:unit", "test:protocol", "test:discovery", "test:local", "test:manifests"),
}


def tasks() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((rendering.ROOT / "Taskfile.yml").read_text())["tasks"]
    return found


def test_every_documented_task_exists() -> None:
    public = {name for name, task in tasks().items() if not task.get("internal")}
    assert public >= DOCUMENTED


def test_every_task_has_a_description() -> None:
    assert [name for name, task in tasks().items() if not task.get("internal") and not task.get("desc")] == []


def test_undeploy_deletes_every_kind_that_deploy_creates() -> None:
    *_, command = tasks()["undeploy"]["cmds"]
    kinds = (
        command.partition(" delete ")[2].split()[0].replace("crds", "customresourcedefinitions").split(",")
    )
    created = {f"{found['kind'].lower()}s" for found in rendering.rendered("overlays/ha")}
    # `task certificates` creates the Secrets; policies go with their definition.
    assert set(kinds) == created | {"secrets"}
    assert "--selector {{.PART_OF}}" in command


def test_every_command_names_the_context_or_cluster() -> None:
    text = (rendering.ROOT / "Taskfile.yml").read_text()
    assert "--context kind-{{.CLUSTER}}" in text
    assert all(
        "--name {{.CLUSTER}}" in line
        for line in text.splitlines()
        if any(f"kind {verb}" in line for verb in ("create cluster", "delete cluster", "load"))
    )
