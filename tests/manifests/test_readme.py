"""Every command that the README shows is run by a test."""

import re

import pytest

from tests.manifests import rendering

README = (rendering.ROOT / "README.md").read_text()

# Each command, and the file and the text in it that run the same.
RUN_BY = {
    "./taskw local": ("tests/local/demo.py", '"up"'),
    "./taskw test": (".ci/run", "./taskw test"),
    "./taskw deploy": ("tests/cluster/conftest.py", 'task("deploy")'),
    "kubectl logs -f deployment/hello-client": ("tests/cluster/test_demo.py", "can_be_followed"),
    "kubectl scale --replicas=5 deployments.apps/hello-server": (
        "tests/cluster/kube.py",
        '"scale", f"--replicas={replicas}", f"deployments.apps/{service}"',
    ),
    "kubectl scale --replicas=0 …": ("tests/cluster/test_demo.py", "test_without_pods"),
    "kubectl scale": ("tests/cluster/test_demo.py", "test_new_pods_answer"),
    "kubectl set env deployment/hello-client TARGET=xds:///howdy-server": (
        "tests/cluster/kube.py",
        '"set", "env", f"deployment/{service}"',
    ),
    "kubectl get pods -o wide": ("tests/cluster/provided.py", '"get", "pods"'),
    "curl …:18080/debug/clients": ("tests/local/test_xds_server.py", "/debug/clients"),
    "curl …:18080/metrics": ("tests/local/test_xds_server.py", "/metrics"),
    "task test:interop": (".ci/run", "test:interop"),
    "task test:chaos": (".ci/run", "test:chaos"),
    "task bench": ("Taskfile.yml", ".venv/bin/python -m bench"),
    "./taskw": ("taskw", "task"),
}


def commands() -> list[str]:
    """The commands in blocks and in the text, without their comments."""
    blocks = re.findall(r"^\$ (.*?)(?:\s+#.*)?$", README, re.MULTILINE)
    inline = re.findall(r"`((?:\./taskw|task|kubectl|curl|xds-server)(?: [^`]+)?)`", README)
    return list(dict.fromkeys([*blocks, *(found for found in inline if found != "xds-server")]))


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_readme_is_run_by_a_test(command: str) -> None:
    file, text = RUN_BY[command]
    assert text in (rendering.ROOT / file).read_text()


def test_no_command_is_listed_in_vain() -> None:
    assert set(RUN_BY) == set(commands())
