"""The Taskfile: every task that people are promised is there and says what it is for, and `undeploy` forgets nothing."""

from typing import Any

import yaml

from tests.manifests import rendering

PROMISED = {
    *("default", "setup", "local", "local:scale", "local:stop"),
    *("cluster:create", "cluster:delete", "build", "load", "deploy", "undeploy", "status", "logs", "scale"),
    *("proto", "proto:check", "lock", "lint", "test", "test:cluster"),
    *("test:unit", "test:protocol", "test:discovery", "test:local", "test:manifests"),
}


def tasks() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((rendering.ROOT / "Taskfile.yml").read_text())["tasks"]
    return found


def test_every_promised_task_exists() -> None:
    public = {name for name, task in tasks().items() if not task.get("internal")}
    assert public >= PROMISED


def test_every_task_says_what_it_is_for() -> None:
    assert [name for name, task in tasks().items() if not task.get("internal") and not task.get("desc")] == []


def test_undeploy_deletes_every_kind_that_deploy_makes() -> None:
    [command] = tasks()["undeploy"]["cmds"]
    kinds = command.partition(" delete ")[2].split()[0].split(",")
    made = {f"{found['kind'].lower()}s" for found in rendering.rendered("overlays/ha")}
    assert set(kinds) == made
    assert "--selector {{.PART_OF}}" in command


def test_no_command_goes_to_the_context_that_happens_to_be_current() -> None:
    text = (rendering.ROOT / "Taskfile.yml").read_text()
    assert "--context kind-{{.CLUSTER}}" in text
    assert all(
        "--name {{.CLUSTER}}" in line
        for line in text.splitlines()
        if any(f"kind {verb}" in line for verb in ("create cluster", "delete cluster", "load"))
    )
