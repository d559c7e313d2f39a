"""`local-demo apply` and `delete`: the examples run here as they do on a cluster."""

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.local.demo import Demo
from tests.support import running
from tests.support.waiting import wait_until

EXAMPLES = Path(__file__).parents[2] / "k8s" / "examples"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    with Demo(tmp_path_factory.mktemp("demo") / "state") as demo:
        demo.wait_until_up()
        yield demo


def apply(demo: Demo, path: Path) -> str:
    result = demo.command("apply", str(path))
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def delete(demo: Demo, path: Path) -> str:
    result = demo.command("delete", str(path))
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def slices(demo: Demo, service: str) -> list[dict[str, Any]]:
    """Returns the EndpointSlices of a service that have a ready endpoint."""
    texts = [file.read_text() for file in demo.directory.glob(f"objects/{service}.*.yaml")]
    found = [yaml.safe_load(text) for text in texts]
    return [each for each in found if each["endpoints"][0]["conditions"]["ready"]]


def deployment(*, env: dict[str, str], image: str = "hello-server:any", **spec: Any) -> dict[str, Any]:
    container = {
        "name": "app",
        "image": image,
        "env": [{"name": name, "value": value} for name, value in env.items()],
    }
    labels = {"app.kubernetes.io/name": "extra"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "extra"},
        "spec": {
            **spec,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


def write(path: Path, *documents: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump_all(documents))
    return path


def test_the_canary_gets_processes_and_endpointslices_and_can_be_scaled(demo: Demo) -> None:
    output = apply(demo, EXAMPLES / "canary")
    assert "deployment default/hello-server-v2: created\n" in output
    assert "hello-server-v2: 2 replicas ready" in output
    assert output.index("hello-server-v2: 2 replicas ready") < output.index(
        "grpcroute default/hello-server: created"
    ), "the route comes when there is somebody to answer"
    assert {each["endpoints"][0]["zone"] for each in slices(demo, "hello-server-v2")} == {"zone-a", "zone-b"}
    route = yaml.safe_load((demo.directory / "objects/grpcroute.default.hello-server.yaml").read_text())
    assert route["metadata"]["generation"] == 1
    assert len(route["spec"]["rules"][0]["backendRefs"]) == 2
    wait_until("a reply to the client of the example", lambda: demo.replies("hello-client-beta-1"))

    assert "grpcroute default/hello-server: unchanged" in apply(demo, EXAMPLES / "canary")
    assert "grpcroute default/hello-server: configured" in apply(demo, EXAMPLES / "canary/by-header.yaml")
    route = yaml.safe_load((demo.directory / "objects/grpcroute.default.hello-server.yaml").read_text())
    assert route["metadata"]["generation"] == 2

    demo.scale("hello-server-v2", 3)
    assert len(slices(demo, "hello-server-v2")) == 3
    assert "hello-server-v2: 2 replicas ready" in apply(demo, EXAMPLES / "canary"), "the example says 2"

    output = delete(demo, EXAMPLES / "canary")
    assert "grpcroute default/hello-server: deleted\n" in output
    assert "hello-server-v2: all replicas have ended" in output
    assert not any("v2" in name or "beta" in name for name in demo.pids())
    assert not [file.name for file in demo.directory.glob("objects/*") if "v2" in file.name]
    assert "grpcroute default/hello-server: is not there\n" in delete(demo, EXAMPLES / "canary/route.yaml")
    assert demo.failures("hello-client") == []


def test_a_changed_environment_replaces_the_processes_new_ones_first(demo: Demo, tmp_path: Path) -> None:
    labels = {"app.kubernetes.io/name": "extra"}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "extra"},
        "spec": {"selector": labels, "ports": [{"name": "grpc", "port": 50051}]},
    }
    client = deployment(env={"TARGET": "xds:///extra.default:50051"}, image="hello-client")
    client["metadata"] = {"name": "extra-client"}
    client["spec"]["template"]["metadata"]["labels"] = {"app.kubernetes.io/name": "extra-client"}
    file = tmp_path / "extra.yaml"
    apply(demo, write(file, service, deployment(env={"GREETING": "Hi"}, replicas=2), client))
    wait_until("a reply", lambda: greetings(demo, "extra-client-1") == {"Hi"})
    failures = demo.failures("extra-client-1")

    apply(demo, write(file, service, deployment(env={"GREETING": "Bonjour"}), client))
    names = {each["endpoints"][0]["targetRef"]["name"] for each in slices(demo, "extra")}
    assert names == {"extra-3", "extra-4"}, "it keeps the number of replicas that it does not name"
    wait_until("the new greeting", lambda: "Bonjour" in greetings(demo, "extra-client-1"))
    assert demo.failures("extra-client-1") == failures
    delete(demo, file)


def greetings(demo: Demo, client: str) -> set[str]:
    return {record["message"].split()[0] for record in demo.log(client) if record["event"] == "reply"}


def test_two_deployments_may_be_behind_one_service(demo: Demo) -> None:
    """As the faulty server is behind hello-server."""
    output = apply(demo, EXAMPLES / "faulty-server")
    assert "hello-server-faulty: 1 replica ready" in output
    names = {each["endpoints"][0]["targetRef"]["name"] for each in slices(demo, "hello-server")}
    assert "hello-server-faulty-1" in names
    assert len(names) == 3
    wait_until(
        "a failure on purpose",
        lambda: any("fails 80 % of its calls" in each["details"] for each in demo.failures("hello-client")),
    )
    delete(demo, EXAMPLES / "faulty-server")


def test_zones_are_hinted_and_clients_have_one(demo: Demo) -> None:
    apply(demo, EXAMPLES / "zones")
    for each in slices(demo, "hello-server-near"):
        [endpoint] = each["endpoints"]
        assert endpoint["hints"] == {"forZones": [{"name": endpoint["zone"]}]}
    assert len(slices(demo, "hello-server-near")) == 2
    assert all("hints" not in each["endpoints"][0] for each in slices(demo, "hello-server"))
    delete(demo, EXAMPLES / "zones")


@pytest.mark.parametrize("example", sorted(path.parent.name for path in EXAMPLES.glob("*/README.md")))
def test_the_command_of_every_readme_names_its_folder(example: str) -> None:
    text = (EXAMPLES / example / "README.md").read_text()
    assert f"./taskw local:apply FILE=k8s/examples/{example}\n" in text
    assert f"kubectl apply -k k8s/examples/{example}\n" in text
    for path in re.findall(r"k8s/examples/[\w./-]+", text):
        assert (EXAMPLES.parents[1] / path).exists(), path


def test_other_kinds_are_ignored_in_words(demo: Demo, tmp_path: Path) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key", "namespace": "shop"}}
    output = apply(demo, write(tmp_path / "secret.yaml", secret))
    assert output == "secret shop/key: ignored, as the local demo has no use for it\n"


GOOD_SERVICE = "{apiVersion: v1, kind: Service, metadata: {name: fine}, spec: {ports: [{port: 1}]}}"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: [", "is not YAML: "),
        ("just text", "is not a Kubernetes object: give it apiVersion, kind and metadata.name"),
        (
            "{apiVersion: v1, kind: Service, metadata: {name: ../x}}",
            "Service: metadata.name must consist of at most 253 lower-case letters",
        ),
        (
            f"{{apiVersion: v1, kind: Service, metadata: {{name: {'x' * 300}}}}}",
            "Service: metadata.name must consist of at most 253 lower-case letters",
        ),
        (
            "{apiVersion: v1, kind: Service, metadata: {name: c, namespace: a.b}}",
            "Service: metadata.namespace must consist of at most 63 lower-case letters, digits, '-', not 'a.b'",
        ),
        (
            "{apiVersion: v1, kind: Service, metadata: {name: x}, spec: 5}",
            "Service default/x: spec must be a mapping",
        ),
        ("{apiVersion: v1, kind: List, items: 5}", "items of a List must be a list, not 5"),
        (GOOD_SERVICE, "service default/fine is in"),
        (
            "{apiVersion: v1, kind: Service, metadata: {name: x}}",
            "service default/x: spec must have a selector and ports",
        ),
        (
            yaml.safe_dump(deployment(env={}, image="nginx:1")),
            "deployment default/extra: image 'nginx:1' cannot run here: use hello-server, howdy-server,",
        ),
        (
            yaml.safe_dump(deployment(env={}, replicas=51)),
            "deployment default/extra: spec.replicas must be a number between 0 and 50, not 51",
        ),
    ],
)
def test_an_error_names_file_object_and_mend_and_applies_nothing(
    demo: Demo, tmp_path: Path, text: str, complaint: str
) -> None:
    file = tmp_path / "objects.yaml"
    file.write_text(f"{GOOD_SERVICE}\n---\n{text}\n")
    before = {each.name for each in demo.directory.glob("objects/*")}
    result = demo.command("apply", str(file))
    assert result.returncode == 2
    assert result.stderr.startswith(f"local-demo: error: {file}: ")
    assert complaint in result.stderr
    assert result.stderr.count("\n") == 1
    assert {each.name for each in demo.directory.glob("objects/*")} == before


def test_an_object_that_is_not_used_is_told_and_fails(demo: Demo, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(
        "{apiVersion: proxyless-grpc-lb.dev/v1alpha1, kind: GRPCBackendPolicy, metadata: {name: hello-server}, "
        'spec: {targetRefs: [{group: "", kind: Service, name: hello-server}], timeout: 1s}}'
    )
    result = demo.command("apply", str(file))
    assert result.returncode == 1
    assert "Accepted=False Invalid: spec.timeout is 1s" in result.stdout
    delete(demo, file)


@pytest.mark.parametrize("command", ["apply", "delete"])
def test_no_demo_runs(command: str, tmp_path: Path) -> None:
    arguments = (command, str(EXAMPLES / "canary"), "--directory", str(tmp_path))
    result = running.run("local-demo", *arguments, env=running.environment())
    assert result.returncode == 2
    assert "nothing runs in" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({}, "has no YAML files"),
        ({"kustomization.yaml": "resources: [gone.yaml]"}, "gone.yaml: cannot be read: No such file"),
        ({"kustomization.yaml": "labels: []"}, "has no list of `resources`"),
        ({"kustomization.yaml": "resources: [.]"}, "its kustomization leads to itself"),
    ],
)
def test_a_folder_without_objects(files: dict[str, str], complaint: str, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(textwrap.dedent(text))
    result = running.run("local-demo", "apply", str(tmp_path), env=running.environment())
    assert (result.returncode, result.stdout) == (2, "")
    assert complaint in result.stderr


def test_a_tenth_of_the_calls_goes_to_the_canary_then_only_those_with_the_header_then_all(
    tmp_path: Path,
) -> None:
    with Demo(tmp_path / "state", INTERVAL="0.02") as demo:
        demo.wait_until_up()
        output = apply(demo, EXAMPLES / "canary")
        assert "grpcroute default/hello-server: Accepted, ResolvedRefs\n" in output

        def answered(client: str, calls: int) -> list[bool]:
            """Returns whether v2 answered, for so many calls from now on."""
            seen = len(demo.replies(client))
            wait_until("replies", lambda: len(demo.replies(client)) >= seen + calls)
            return ["-v2-" in name for name in demo.replies(client)[seen : seen + calls]]

        def settled(client: str, *, v2: bool) -> None:
            wait_until(
                f"{client} to be answered by {'v2' if v2 else 'v1'} alone",
                lambda: all(name == v2 for name in answered(client, 50)),
            )

        wait_until("v2 to answer", lambda: any("-v2-" in name for name in demo.replies("hello-client")))
        # 99.9 % of all samples of 1,000 calls have between 70 and 133 of the tenth.
        assert 70 <= sum(answered("hello-client", 1000)) <= 133
        apply(demo, EXAMPLES / "canary/by-header.yaml")
        settled("hello-client-beta-1", v2=True)
        settled("hello-client", v2=False)
        apply(demo, EXAMPLES / "canary/all.yaml")
        settled("hello-client", v2=True)
        delete(demo, EXAMPLES / "canary")
        settled("hello-client", v2=False)
        assert demo.end()["hello-client"]["failed"] == 0
