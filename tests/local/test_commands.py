"""The commands beside `serve`, as programs: what they print, and their exit codes."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support import objects, running
from tests.support.running import Running
from tests.support.xds_server import XdsServer

ROOT = Path(__file__).parents[2]
HELLO = "hello-server.default:50051"
POLICY = """\
apiVersion: proxyless-grpc-lb.dev/v1alpha1
kind: GRPCBackendPolicy
metadata: {name: hello-server}
spec:
  targetRefs: [{group: "", kind: Service, name: hello-server}]
  timeout: 1s
"""


def run(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [str(running.BIN / "xds-server"), *arguments]
    env = running.environment()
    return subprocess.run(
        command, input=text, env=env, capture_output=True, check=False, text=True, timeout=60
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    objects.write(
        tmp_path / "hello.yaml",
        objects.service("hello-server"),
        objects.endpoint_slice("hello-1", "hello-server", **objects.endpoints("127.0.0.1", port=4711)),
    )
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[XdsServer]:
    with XdsServer(folder) as server:
        server.wait_until_ready()
        yield server


# ---- explain ----


def test_explain_asks_a_server(server: XdsServer) -> None:
    done = run("explain", f"xds:///{HELLO}", "--server", server.admin)
    assert done.returncode == 0
    assert "127.0.0.1:4711" in done.stdout
    assert done.stderr == ""


def test_explain_says_the_same_of_a_folder(server: XdsServer, folder: Path) -> None:
    flags = ("explain", "hello-server", "--namespace", "default", "--zone", "a", "--output")
    asked = run(*flags, "json", "--server", f"http://{server.admin}")
    read = run(*flags, "json", "--folder", str(folder))
    assert json.loads(asked.stdout) == json.loads(read.stdout)
    assert yaml.safe_load(run(*flags, "yaml", "--folder", str(folder)).stdout) == json.loads(read.stdout)


def test_explain_of_a_name_that_leads_nowhere_fails_with_the_nearest(folder: Path) -> None:
    done = run("explain", "helo-server", "--folder", str(folder))
    assert done.returncode == 1
    assert "no Service helo-server in namespace default" in done.stdout
    assert HELLO in done.stdout


def test_explain_without_a_server_says_how_to_reach_one() -> None:
    done = run("explain", HELLO, "--server", f"127.0.0.1:{running.free_port()}")
    assert done.returncode == 2
    assert "port-forward" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("query", ["", "?name=", f"?name={'x' * 600}", f"?name=a&zone={'x' * 600}"])
def test_the_page_for_explanations_refuses_wrong_parameters(server: XdsServer, query: str) -> None:
    status, text = server.get(f"/debug/explain{query}")
    assert status == 400
    assert "name" in text or "longer" in text


def test_explain_of_a_folder_that_can_not_be_read_names_the_file(folder: Path) -> None:
    (folder / "bad.yaml").write_text("a: [")
    done = run("explain", HELLO, "--folder", str(folder))
    assert done.returncode == 2
    assert f"{folder}/bad.yaml:2: this is not YAML" in done.stderr


# ---- lint ----


def test_lint_of_good_files_says_so(folder: Path) -> None:
    done = run("lint", str(folder))
    assert done.returncode == 0
    assert done.stdout == ""
    assert done.stderr == "0 errors, 0 warnings, 0 notes in 1 file\n"


def test_lint_names_file_and_line(folder: Path) -> None:
    (folder / "policy.yaml").write_text(POLICY)
    done = run("lint", str(folder))
    assert done.returncode == 1
    assert done.stdout.startswith(f"{folder}/policy.yaml:6: error: GRPCBackendPolicy default/hello-server: ")
    assert len(done.stdout.splitlines()) == 1
    for form, load in (("json", json.loads), ("yaml", yaml.safe_load)):
        [finding] = load(run("lint", str(folder), "--output", form).stdout)
        assert (finding["line"], finding["level"]) == (6, "error")


def test_lint_reads_stdin() -> None:
    done = run("lint", "-", text=POLICY)
    assert done.returncode == 1
    assert done.stdout.startswith("-:1: note: ") or "-:6: error: " in done.stdout


def test_lint_of_a_file_that_does_not_exist_fails(tmp_path: Path) -> None:
    done = run("lint", str(tmp_path / "gone.yaml"))
    assert done.returncode == 2
    assert "no such file or folder" in done.stderr


def test_the_objects_of_this_repository_are_clean() -> None:
    examples = sorted(path.parent for path in ROOT.glob("k8s/examples/*/kustomization.yaml"))
    assert examples
    for example in [*examples, ROOT / "k8s/overlays/kind"]:
        kubectl = Path(sys.executable).with_name("kubectl")
        command = [str(kubectl), "kustomize", str(example)]
        rendered = subprocess.run(command, capture_output=True, check=True, text=True).stdout
        done = run("lint", "-", text=rendered)
        assert done.returncode == 0, f"{example}: {done.stdout}"


def test_the_hook_for_pre_commit_runs_lint(folder: Path) -> None:
    [hook] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    program, *arguments = hook["entry"].split()
    assert program == "xds-server"
    assert run(*arguments, str(folder / "hello.yaml")).returncode == 0
    assert hook["language"] == "python"


# ---- bootstrap ----


def test_a_client_with_that_bootstrap_is_balanced(folder: Path, server: XdsServer) -> None:
    port = running.free_port()
    env = running.environment(PORT=str(port), HOSTNAME="hello-1", POD_IP="127.0.0.1", DRAIN_DELAY="0")
    with Running("hello-server", env=env) as greeter:
        greeter.wait_for_line("serving")
        objects.write(
            folder / "hello.yaml",
            objects.service("hello-server"),
            objects.endpoint_slice("hello-1", "hello-server", **objects.endpoints("127.0.0.1", port=port)),
        )
        made = run(
            "bootstrap", "--server", server.address, "--namespace", "default", "--node-id", "me"
        ).stdout
        call = ROOT / "tests/support/call.py"
        env = running.environment(GRPC_XDS_BOOTSTRAP_CONFIG=made)
        result = running.run("python", str(call), "xds:///hello-server", env=env, seconds=60)
    assert json.loads(result.stdout) == {"xds:///hello-server": "hello-1"}


def test_the_bootstrap_for_pods_is_that_of_the_component() -> None:
    patch = yaml.safe_load((ROOT / "k8s/components/xds-client/bootstrap.yaml").read_text())
    variables = patch["spec"]["template"]["spec"]["containers"][0]["env"]
    [text] = [each["value"] for each in variables if each["name"] == "GRPC_XDS_BOOTSTRAP_CONFIG"]
    assert json.loads(run("bootstrap", "--pod", "--server", "xds-server:18000").stdout) == json.loads(text)


def test_the_bootstrap_with_tls_names_the_files_of_a_secret() -> None:
    [server] = json.loads(run("bootstrap", "--tls", "/tls/").stdout)["xds_servers"]
    assert server["server_uri"] == "xds-server.xds-system:18001"
    [credentials] = server["channel_creds"]
    assert credentials["type"] == "tls"
    assert sorted(credentials["config"].values()) == ["/tls/ca.crt", "/tls/tls.crt", "/tls/tls.key"]


def test_a_server_that_is_no_address_is_refused() -> None:
    done = run("bootstrap", "--server", "xds-server")
    assert done.returncode == 2
    assert "HOST:PORT" in done.stderr


# ---- help ----


@pytest.mark.parametrize("command", ["explain", "lint", "bootstrap"])
def test_help_has_examples(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert f"xds-server {command}" in done.stdout
    assert "Examples:" in done.stdout


@pytest.mark.parametrize("command", [["lint", "-"], ["bootstrap"], ["explain", "a", "--folder", "."]])
def test_commands_do_not_load_the_server(command: list[str], tmp_path: Path) -> None:
    code = f"import sys; from xds_server.__main__ import main; sys.argv[1:] = {command!r}; main(); print('grpc' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], input="", capture_output=True, check=True, text=True, cwd=tmp_path
    )
    assert done.stdout.splitlines()[-1] == "False"
