"""Every spelling of a target, called by a real gRPC client."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import objects, running
from tests.support.running import Running
from tests.support.waiting import wait_until
from tests.support.xds_server import XdsServer

GRPC_PORT = {"name": "grpc", "port": 50051}
CALL = Path(__file__).parents[1] / "support" / "call.py"


def greeter(name: str, port: int) -> Running:
    env = running.environment(PORT=str(port), HOSTNAME=name, POD_IP="127.0.0.1", DRAIN_DELAY="0")
    return Running("hello-server", env=env)


@pytest.fixture(scope="module")
def xds_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[XdsServer]:
    """An xds-server with services that a target may name, each with a greeter whose host name is the service's."""
    folder = tmp_path_factory.mktemp("endpoints")
    services = {
        # Two ports: a target without a port means the one named grpc.
        ("hello-server", "default"): [GRPC_PORT, {"name": "metrics", "port": 9090}],
        ("hello-server", "other"): [GRPC_PORT],
        ("exact-listener", "default"): [GRPC_PORT],
        ("exact", "default"): [GRPC_PORT],
        # Two ports, neither named grpc: a target without a port means the one with an appProtocol.
        ("by-protocol", "default"): [
            {"name": "web", "port": 80},
            {"name": "api", "port": 81, "appProtocol": "kubernetes.io/h2c"},
        ],
    }
    with ExitStack() as stack:
        for (name, namespace), ports in services.items():
            number = running.free_port()
            stack.enter_context(greeter(f"{name}.{namespace}", number)).wait_for_line("serving")
            grpc_port = str(ports[-1]["name"] if name == "by-protocol" else "grpc")
            objects.write(
                folder / f"{name}.{namespace}.yaml",
                objects.service(name, namespace=namespace, ports=ports),
                objects.endpoint_slice(
                    f"{name}-1",
                    name,
                    namespace=namespace,
                    **objects.endpoints("127.0.0.1", port=number, port_name=grpc_port),
                ),
            )
        server = stack.enter_context(XdsServer(folder, CLUSTER_DOMAIN="cluster.local"))
        server.wait_until_ready()
        yield server


def answers(xds_server: XdsServer, *names: str, namespace: str | None) -> dict[str, str]:
    """Calls xds:///NAME for each name as a client in a namespace, and returns the host that answered each."""
    node: dict[str, object] = {"id": "test"}
    if namespace:
        node["metadata"] = {"NAMESPACE": namespace}
    bootstrap = {
        "xds_servers": [
            {
                "server_uri": xds_server.address,
                "channel_creds": [{"type": "insecure"}],
                "server_features": ["xds_v3"],
            }
        ],
        "node": node,
    }
    env = running.environment(GRPC_XDS_BOOTSTRAP_CONFIG=json.dumps(bootstrap))
    result = running.run("python", str(CALL), *(f"xds:///{name}" for name in names), env=env, seconds=100)
    assert result.returncode == 0, result.stderr
    print(*xds_server.lines[-20:], sep="\n")  # noqa: T201 - pytest shows it if a test fails
    found: dict[str, str] = json.loads(result.stdout)
    return {target.removeprefix("xds:///"): host for target, host in found.items()}


@pytest.mark.parametrize("namespace", ["default", None])
def test_all_spellings(xds_server: XdsServer, namespace: str | None) -> None:
    spellings = [
        "hello-server",
        "hello-server:50051",
        "hello-server:grpc",
        "hello-server.default",
        "hello-server.default:50051",
        "hello-server.default:grpc",
        "hello-server.default.svc",
        "hello-server.default.svc:50051",
        "hello-server.default.svc:grpc",
        "hello-server.default.svc.cluster.local",
        "hello-server.default.svc.cluster.local:50051",
        "hello-server.default.svc.cluster.local:grpc",
        "hello-server-listener",
    ]
    found = answers(xds_server, *spellings, namespace=namespace)
    assert found == dict.fromkeys(spellings, "hello-server.default")


def test_a_short_name_means_the_service_of_the_clients_namespace(xds_server: XdsServer) -> None:
    names = ["hello-server", "hello-server:50051", "hello-server-listener", "hello-server.default"]
    assert answers(xds_server, *names, namespace="other") == {
        "hello-server": "hello-server.other",
        "hello-server:50051": "hello-server.other",
        "hello-server-listener": "hello-server.other",
        "hello-server.default": "hello-server.default",
    }


def test_an_exact_name_wins_over_the_suffix_listener(xds_server: XdsServer) -> None:
    assert answers(xds_server, "exact-listener", "exact", namespace="default") == {
        "exact-listener": "exact-listener.default",
        "exact": "exact.default",
    }


def test_a_target_without_a_port_means_the_grpc_port(xds_server: XdsServer) -> None:
    assert answers(xds_server, "by-protocol", "by-protocol:api", "by-protocol:81", namespace="default") == {
        "by-protocol": "by-protocol.default",
        "by-protocol:api": "by-protocol.default",
        "by-protocol:81": "by-protocol.default",
    }


def test_the_client_program_resolves_a_short_target(xds_server: XdsServer) -> None:
    bootstrap = {
        "xds_servers": [{"server_uri": xds_server.address, "channel_creds": [{"type": "insecure"}]}],
        "node": {"id": "test", "metadata": {"NAMESPACE": "other"}},
    }
    env = running.environment(
        GRPC_XDS_BOOTSTRAP_CONFIG=json.dumps(bootstrap),
        TARGET="xds:///hello-server",
        INTERVAL="0.05",
        LOG_FORMAT="json",
    )
    with Running("hello-client", env=env) as client:
        wait_until(
            "a reply from the other namespace",
            lambda: [one for one in client.records if one.get("hostname") == "hello-server.other"],
        )
