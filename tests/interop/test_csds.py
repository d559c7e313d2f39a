"""The client status discovery service, called with grpcurl, which gets the API from reflection."""

import json
import subprocess

import pytest

from tests.interop.client import Program
from tests.interop.languages import BUILD, CLIENTS, GO, LANGUAGES, run
from tests.interop.mesh import NAME, TARGET, Mesh
from tests.support import running

CSDS = "envoy.service.status.v3.ClientStatusDiscoveryService"


@pytest.fixture(scope="module")
def grpcurl() -> str:
    """The path of grpcurl, built from its pinned source."""
    tool = LANGUAGES[1]
    assert tool.tools == (GO,)
    if tool.missing:
        pytest.skip(f"not run: {tool.missing}")
    path = str(BUILD / "grpcurl")
    run("go", "build", "-o", path, "github.com/fullstorydev/grpcurl/cmd/grpcurl", cwd=CLIENTS / "grpcurl")
    return path


@pytest.mark.smoke
def test_grpcurl_finds_and_calls_it(mesh: Mesh, grpcurl: str) -> None:
    mesh.serve({"zone-a": mesh.greeters[:1]})
    environment = running.environment(GRPC_XDS_BOOTSTRAP_CONFIG=mesh.bootstrap("grpcurl.default"))
    with Program(LANGUAGES[0].build(), environment) as client:
        client.open("a", TARGET)
        assert client.call("a").hosts == [mesh.greeters[0].name]

        services = _grpcurl(grpcurl, mesh.server.debug, "list").split()
        assert CSDS in services
        assert "envoy.service.discovery.v3.AggregatedDiscoveryService" in services
        assert "rpc FetchClientStatus" in _grpcurl(grpcurl, mesh.server.debug, "describe", CSDS)

        answer = json.loads(_grpcurl(grpcurl, mesh.server.debug, f"{CSDS}/FetchClientStatus"))
        [config] = answer["config"]
        assert config["node"]["id"] == "grpcurl.default"
        seen = {each["type_url"].rpartition(".")[2]: each for each in config["generic_xds_configs"]}
        assert seen.keys() == {"Listener", "RouteConfiguration", "Cluster", "ClusterLoadAssignment"}
        assert {each["client_status"] for each in seen.values()} == {"ACKED"}
        assert {each["name"] for each in seen.values()} == {NAME}
        # Reflection includes the types of the resources.
        [locality] = seen["ClusterLoadAssignment"]["xds_config"]["endpoints"]
        assert locality["locality"] == {"zone": "zone-a"}


def _grpcurl(program: str, address: str, *arguments: str) -> str:
    command = [program, "-plaintext", address, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout
