"""The Dockerfiles: all alike, with pinned packages on a configurable base image, not running as root."""

import json
import re
import tomllib

import pytest

from tests.manifests import rendering

every_service = pytest.mark.parametrize("service", rendering.SERVICES)


def dockerfile(service: str) -> str:
    return (rendering.ROOT / service / "Dockerfile").read_text()


def instructions(service: str) -> list[str]:
    """Returns the instructions of a Dockerfile, each on one line."""
    text = re.sub(r"^#.*\n", "", dockerfile(service), flags=re.MULTILINE).replace("\\\n", "")
    return [re.sub(r"\s+", " ", line.strip()) for line in text.splitlines() if line.strip()]


def anonymous(service: str) -> list[str]:
    """Returns the instructions, with placeholders for the service's name and requirements."""
    requirements = "xds-server" if service == "xds-server" else f"greeter-{service.partition('-')[2]}"
    renamed = [
        line.replace(f"requirements/{requirements}.txt", "REQUIREMENTS") for line in instructions(service)
    ]
    return [line.replace(service, "SERVICE") for line in renamed]


def test_the_greeters_only_differ_in_their_names() -> None:
    first, *others = (anonymous(service) for service in (*rendering.SERVERS, *rendering.CLIENTS))
    assert all(other == first for other in others)


def test_xds_server_differs_in_its_sources_and_removed_packages() -> None:
    greeter, xds_server = anonymous("hello-server"), anonymous("xds-server")
    only = [line for line in xds_server if line not in greeter]
    assert [line.split()[0] for line in only] == ["RUN", "COPY", "RUN", "CMD"]
    assert "kubernetes/aio" in only[0]
    assert only[-1] == 'CMD ["serve"]'


@every_service
def test_the_entry_point_is_the_program_itself(service: str) -> None:
    [entry_point] = [line for line in instructions(service) if line.startswith("ENTRYPOINT")]
    assert json.loads(entry_point.removeprefix("ENTRYPOINT")) == [service], (
        "signals reach the program without a shell in between"
    )
    project = tomllib.loads((rendering.ROOT / service / "pyproject.toml").read_text())
    assert service in project["project"]["scripts"]


@every_service
def test_the_user_is_not_root(service: str) -> None:
    users = [line for line in instructions(service) if line.startswith("USER")]
    assert users == ["USER 65532:65532"], "numeric, so that the kubelet can verify that it is not root"


@every_service
def test_the_base_image_is_an_argument(service: str) -> None:
    assert instructions(service)[0] == "ARG PYTHON_IMAGE=python:3.13-slim"
    bases = [line.split()[1] for line in instructions(service) if line.startswith("FROM")]
    assert set(bases) == {"${PYTHON_IMAGE}"}


@every_service
def test_packages_are_verified_by_hash(service: str) -> None:
    for line in instructions(service):
        if "pip" in line and "install" in line and line.startswith("RUN"):
            ours = "--no-deps --no-build-isolation" in line
            assert ours or "--require-hashes --only-binary :all: --requirement" in line
    for name in re.findall(r"requirements/\S+\.txt", dockerfile(service)):
        pinned = (rendering.ROOT / name).read_text()
        assert pinned.count("==") <= pinned.count("--hash=sha256:")


@every_service
def test_the_final_stage_only_copies(service: str) -> None:
    lines = instructions(service)
    final = lines[max(index for index, line in enumerate(lines) if line.startswith("FROM")) :]
    assert not [line for line in final if line.startswith(("RUN", "ADD"))]


@every_service
def test_dockerfiles_need_no_newer_builder_than_the_default(service: str) -> None:
    text = dockerfile(service)
    assert "# syntax=" not in text
    assert "<<" not in text
    assert "--link" not in text
    assert not re.search(r"^(ADD|MAINTAINER|HEALTHCHECK)", text, re.MULTILINE)


def test_the_build_context_is_an_allow_list() -> None:
    lines = (rendering.ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    allowed = [rule for rule in rules if rule.startswith("!")]
    assert rules[0] == "*"
    assert allowed == [
        "!requirements/*.txt",
        "!protos/pyproject.toml",
        "!protos/gen/",
        "!libs/",
        *(f"!{service}/" for service in sorted(rendering.SERVICES)),
    ]
