"""hello-client and howdy-client as processes, with a real xds-server that reads files."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import running
from tests.support.running import Running
from tests.support.waiting import wait_until

TARGET = "xds:///hello-server.default:50051"


class Mesh:
    """Files for an xds-server, with a Service hello-server, and the address of that server."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.address = f"127.0.0.1:{running.free_port()}"
        self._write(
            "service",
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "hello-server", "namespace": "default"},
                "spec": {"ports": [{"name": "grpc", "port": 50051, "protocol": "TCP"}]},
            },
        )

    @contextmanager
    def xds_server(self) -> Iterator[None]:
        """Runs the xds-server; begins when it is ready."""
        settings = {
            "LISTEN": self.address,
            "ADMIN_LISTEN": "127.0.0.1:0",
            "DEBUG_LISTEN": "",
            "POLL_INTERVAL": "1",
        }
        files = {"DISCOVERY": "files", "DISCOVERY_DIR": str(self._directory)}
        with Running("xds-server", "serve", env=running.environment(**settings, **files)) as server:
            server.wait_for_line('"ready"')
            yield

    def client(self, program: str = "hello-client", **settings: str) -> "Client":
        return Client(program, GRPC_XDS_BOOTSTRAP_CONFIG=bootstrap(self.address), **settings)

    def add_replica(self, name: str, port: int, zone: str = "zone-a") -> None:
        self._write(
            name,
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": name,
                    "namespace": "default",
                    "labels": {"kubernetes.io/service-name": "hello-server"},
                },
                "addressType": "IPv4",
                "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}, "zone": zone}],
                "ports": [{"name": "grpc", "port": port, "protocol": "TCP"}],
            },
        )

    def remove_replica(self, name: str) -> None:
        (self._directory / f"{name}.json").unlink()

    def _write(self, name: str, content: dict[str, Any]) -> None:
        temporary = self._directory / f".{name}"
        temporary.write_text(json.dumps(content))
        temporary.rename(self._directory / f"{name}.json")


class Client(Running):
    """A greeter's client that calls often."""

    def __init__(self, program: str = "hello-client", **settings: str) -> None:
        defaults = {"INTERVAL": "0.05", "TARGET": TARGET}
        super().__init__(program, env=running.environment(**(defaults | settings)))

    def wait_for(self, event: str, **facts: Any) -> dict[str, Any]:
        """Waits for a line of the log with these facts among others."""
        wanted = {"event": event} | facts

        def look() -> list[dict[str, Any]]:
            self._ended()
            return [
                record
                for record in self.records
                if all(record.get(key) == value for key, value in wanted.items())
            ]

        return wait_until(f"a line of the log with {wanted}", look)[-1]

    def hosts(self, last: int) -> set[str]:
        """Returns who gave the latest replies."""
        return {record["hostname"] for record in self.records[-last:] if record["event"] == "reply"}

    def events(self) -> list[str]:
        return [record["event"] for record in self.records]


class Replica(Running):
    """A hello-server that stops without delay."""

    def __init__(self, hostname: str, port: int) -> None:
        settings = {"PORT": str(port), "HOSTNAME": hostname, "POD_IP": "127.0.0.1", "DRAIN_DELAY": "0"}
        super().__init__("hello-server", env=running.environment(**settings))


def bootstrap(address: str) -> str:
    server = {"server_uri": address, "channel_creds": [{"type": "insecure"}]}
    return json.dumps({"xds_servers": [server], "node": {"id": "test-client.default", "locality": {}}})


@pytest.fixture
def mesh(tmp_path: Path) -> Mesh:
    return Mesh(tmp_path)


@pytest.fixture
def ports() -> tuple[int, int]:
    return running.free_port(), running.free_port()


@pytest.fixture
def replicas(ports: tuple[int, int]) -> Iterator[None]:
    with Replica("replica-1", ports[0]), Replica("replica-2", ports[1]):
        yield


@pytest.mark.usefixtures("replicas")
def test_it_logs_its_xds_resources_and_who_replies(mesh: Mesh, ports: tuple[int, int]) -> None:
    mesh.add_replica("one", ports[0])
    with mesh.xds_server(), mesh.client() as client:
        client.wait_for("bootstrap", xds_server=mesh.address, node="test-client.default")
        for type_ in ("LDS", "RDS", "CDS"):
            client.wait_for("xDS", type=type_, status="ACKED")
        one = f"127.0.0.1:{ports[0]} HEALTHY zone-a"
        client.wait_for("xDS", type="EDS", status="ACKED", endpoints=[one])
        client.wait_for("reply", hostname="replica-1", ip="127.0.0.1")
        assert client.events().index("xDS") < client.events().index("reply"), (
            "the cause comes before its effect"
        )

        mesh.add_replica("two", ports[1], zone="zone-b")
        two = f"127.0.0.1:{ports[1]} HEALTHY zone-b"
        client.wait_for("xDS", type="EDS", status="ACKED", endpoints=sorted([one, two]))
        wait_until("replies of both replicas", lambda: client.hosts(10) == {"replica-1", "replica-2"})

        client.send(signal.SIGTERM)
        assert client.wait() == 0
        total = client.records[-1]
    assert (total["event"], total["period"], set(total["hosts"])) == (
        "spread over hosts",
        "in all",
        {"replica-1", "replica-2"},
    )
    assert total["replies"] == sum(total["hosts"].values()) == client.events().count("reply")
    assert [line for line in client.lines if not line.startswith("{")] == [], "gRPC writes nothing itself"


@pytest.mark.usefixtures("replicas")
def test_a_service_without_replicas_is_a_clear_error_until_one_comes(
    mesh: Mesh, ports: tuple[int, int]
) -> None:
    mesh.add_replica("one", ports[0])
    with mesh.xds_server(), mesh.client() as client:
        client.wait_for("reply", hostname="replica-1")
        mesh.remove_replica("one")
        failure = client.wait_for("call failed", status="UNAVAILABLE")
        assert "has no ready pod" in failure["hint"]
        client.wait_for("xDS", type="EDS", endpoints=[])
        mesh.add_replica("two", ports[1])
        client.wait_for("calls work again")
        client.wait_for("reply", hostname="replica-2")


@pytest.mark.usefixtures("replicas")
def test_it_waits_for_an_xds_server_that_is_not_there_yet(mesh: Mesh, ports: tuple[int, int]) -> None:
    mesh.add_replica("one", ports[0])
    with mesh.client() as client:
        failure = client.wait_for("call failed", status="UNAVAILABLE")
        assert f"no xDS server answers at {mesh.address}: " in failure["hint"]
        assert "`kubectl get pods -l app.kubernetes.io/name=xds-server`" in failure["hint"]
        with mesh.xds_server():
            client.wait_for("calls work again")
            client.wait_for("reply", hostname="replica-1")
        assert "nobody serves this target" not in client.events()


def test_a_target_that_nobody_serves_is_logged_long_before_grpc_fails_its_calls(mesh: Mesh) -> None:
    with mesh.xds_server(), mesh.client(TARGET="xds:///hallo-server.default:50051") as client:
        line = client.wait_for("nobody serves this target", type="LDS", name="hallo-server.default:50051")
        assert "xds:///SERVICE.NAMESPACE:PORT" in line["hint"]
        assert "`kubectl get services -A`" in line["hint"]
        earlier = client.records[: client.records.index(line)]
        assert "DOES_NOT_EXIST" not in [record.get("status") for record in earlier]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({}, "xds: targets need an xDS bootstrap: set GRPC_XDS_BOOTSTRAP to the name of a JSON file"),
        ({"GRPC_XDS_BOOTSTRAP_CONFIG": "{"}, "GRPC_XDS_BOOTSTRAP_CONFIG: the xDS bootstrap is not JSON: "),
        (
            {"GRPC_XDS_BOOTSTRAP_CONFIG": "{}"},
            "GRPC_XDS_BOOTSTRAP_CONFIG: the xDS bootstrap names no xDS server",
        ),
        (
            {"GRPC_XDS_BOOTSTRAP": "/nowhere"},
            "GRPC_XDS_BOOTSTRAP=/nowhere: the xDS bootstrap cannot be read (No such",
        ),
    ],
)
@pytest.mark.parametrize("program", ["hello-client", "howdy-client"])
def test_no_usable_bootstrap_is_one_line(program: str, settings: dict[str, str], complaint: str) -> None:
    result = running.run(program, env=running.environment(LOG_FORMAT="text", **settings))
    assert (result.returncode, result.stderr) == (2, "")
    assert result.stdout.count("\n") == 1
    assert f"{program}: {complaint}" in result.stdout


def test_a_bootstrap_that_only_grpc_can_judge_is_a_clear_error() -> None:
    odd = json.dumps({"xds_servers": [{"server_uri": "a:1", "channel_creds": [{"type": "unheard-of"}]}]})
    with Client(GRPC_XDS_BOOTSTRAP_CONFIG=odd) as client:
        failure = client.wait_for("call failed", status="UNAVAILABLE")
        assert "no known creds type found" in failure["details"]
        assert "correct it in GRPC_XDS_BOOTSTRAP_CONFIG" in failure["hint"]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"INTERVAL": "0"}, "INTERVAL=0: must be a number between 0.001 and 86400"),
        ({"TARGET": "xds://a"}, "TARGET=xds://a: must be xds:///SERVICE.NAMESPACE:PORT, with three slashes"),
    ],
)
def test_a_wrong_setting_is_one_line(settings: dict[str, str], complaint: str) -> None:
    result = running.run("hello-client", env=running.environment(**settings))
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert f"hello-client: error: {complaint}" in result.stderr


@pytest.mark.parametrize(("program", "port"), [("hello-client", 50051), ("howdy-client", 50052)])
def test_help_names_the_settings_and_defaults(program: str, port: int) -> None:
    result = running.run(program, "--help", env=running.environment(COLUMNS="120"))
    assert result.returncode == 0
    text = " ".join(result.stdout.split())
    assert f"[TARGET, default xds:///{program.replace('client', 'server')}.default:{port}]" in text
    for default in ("INTERVAL, default 3", "TIMEOUT, default 5", "NAME, default gRPC Proxyless LB"):
        assert f"[{default}]" in text


def test_without_xds_it_calls_through_restarts_of_the_server(ports: tuple[int, int]) -> None:
    with Client(TARGET=f"127.0.0.1:{ports[0]}") as client:
        failure = client.wait_for("call failed", status="UNAVAILABLE")
        assert "none of the endpoints can be reached" in failure["hint"]
        for hostname in ("first", "second"):
            with Replica(hostname, ports[0]):
                client.wait_for("reply", hostname=hostname)
        client.send(signal.SIGINT)
        assert client.wait() == 0
    assert "bootstrap" not in client.events()
