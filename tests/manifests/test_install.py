"""scripts/render-install writes what `kubectl apply -f` takes, with the image that it is given."""

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.manifests import rendering


def render(image: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(rendering.ROOT / "scripts/render-install"), image, str(folder)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.mark.parametrize(
    "image",
    ["registry.example.com:5000/team/xds-server:1.2.3", "registry.example.com/xds-server@sha256:0123"],
)
def test_the_image_is_the_one_given(image: str, tmp_path: Path) -> None:
    assert render(image, tmp_path).returncode == 0
    objects = list(yaml.safe_load_all((tmp_path / "install.yaml").read_text()))
    [deployment] = [found for found in objects if found["kind"] == "Deployment"]
    assert rendering.container(deployment)["image"] == image
    assert deployment["spec"]["replicas"] == 2
    assert {found["metadata"].get("namespace") for found in objects} == {"xds-system", None}
    assert objects[0]["kind"] == "Namespace", "kubectl creates objects in the order of the file"


def test_the_injector_is_written_for_both_versions_of_its_api(tmp_path: Path) -> None:
    render("registry.example.com/xds-server:1", tmp_path)
    for name, version in (("injector", "v1"), ("injector-v1beta1", "v1beta1")):
        objects = list(yaml.safe_load_all((tmp_path / f"{name}.yaml").read_text()))
        assert {found["apiVersion"] for found in objects} == {"v1", f"admissionregistration.k8s.io/{version}"}


def test_an_image_without_a_tag_is_refused(tmp_path: Path) -> None:
    done = render("xds-server", tmp_path)
    assert done.returncode == 2
    assert "registry.example.com/xds-server:1.2.3" in done.stderr
    assert list(tmp_path.iterdir()) == []
